"""The bundled model: where it is, and what `awqscope demo` asks of it."""

from pathlib import Path

from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.errors import InputError

# In a checkout this file is seen through a link.
HERE = Path(__file__).resolve().parent
FOLDERS = (
    HERE / "bundled",
    HERE.parent / "examples" / "demo",
)


def find_demo() -> Path:
    """The directory of the bundled model, in an installed package or a checkout."""
    for folder in FOLDERS:
        if (folder / "model.safetensors").exists():
            return folder
    raise InputError("the bundled model is missing", "reinstall awqscope, or use a whole clone")


def demo_spec(seed: int) -> RunSpec:
    """A run of the bundled model on its own texts, small enough for two cores."""
    folder = find_demo()
    return RunSpec(
        model=str(folder),
        calib=str(folder / "calib.txt"),
        valid=(str(folder / "valid.txt"),),
        seq_len=256,
        windows=40,
        calib_windows=24,
        seed=seed,
    )
