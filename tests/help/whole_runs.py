"""Runs that end before a checkpoint, and what makes two of them equal."""

from collections.abc import Callable
from pathlib import Path

from safetensors import safe_open

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec


def measuring_spec(make_model: Callable[..., Path], text: Path) -> RunSpec:
    """A run of a tiny model in several chunks, with a block flagged and a unit kept at 16 bits; at
    3 bits, of which no checkpoint is written."""
    return RunSpec(
        model=str(make_model("llama", num_hidden_layers=4)),
        calib=str(text),
        valid=str(text),
        bits=3,
        group_size=64,
        seq_len=64,
        windows=10,
        calib_windows=6,
        calib_seq_len=64,
        top_k=1,
        keep_fp16=("1.o",),
        verify_units=4,
    )


def assert_equal_runs(one: RunDirectory, other: RunDirectory) -> None:
    """Equal searches, numbers, tables and arrays, to the last bit."""
    ours, theirs = one.read().to_json(), other.read().to_json()
    assert ours["state"] == theirs["state"] == "done"
    for entry in ("headline", "estimator"):
        assert ours[entry] == theirs[entry], entry
    searches = sorted(path.name for path in one.searches.iterdir())
    assert searches == sorted(path.name for path in other.searches.iterdir())
    for name in searches:
        assert _read(one.searches / name) == _read(other.searches / name), name
    tables = sorted(path.stem for path in one.path.glob("*.parquet"))
    assert {"blocks", "units", "linears", "promotions", "tokens", "activations"} <= set(tables)
    for table in tables:
        assert one.read_table(table).equals(other.read_table(table)), table
    first, second = (run.read_arrays("activations.safetensors") for run in (one, other))
    assert {k: v.tobytes() for k, v in first.items()} == {k: v.tobytes() for k, v in second.items()}
    assert not one.work.exists()


def _read(path: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """A safetensors file's metadata, and the bytes of each tensor."""
    with safe_open(path, framework="np") as file:
        return file.metadata(), {name: file.get_tensor(name).tobytes() for name in file.keys()}
