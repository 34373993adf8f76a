"""The distribution as others install it: one package to import, with which nothing collides."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import awqscope
from tests.help.root import ROOT

# What a project of somebody's may well be called, and what is in ours.
TAKEN = ("app", "diagnose", "mixedprec")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    options = ["--disable-pip-version-check", f"--wheel-dir={folder}", str(ROOT)]
    subprocess.run([*command, *options], check=True)
    return next(folder.glob("*.whl"))


def test_one_package_is_installed(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"awqscope"}
    ours = {
        str(path.relative_to(ROOT))
        for package in TAKEN
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    bundled = {f"app/bundled/{path.name}" for path in (ROOT / "examples/demo").glob("*.txt")}
    assert {f"awqscope/{name}" for name in ours | bundled} <= set(names)


def test_scripts_have_what_is_promised() -> None:
    assert all(getattr(awqscope, name) is not None for name in awqscope.__all__)
    assert set(awqscope.__all__) <= set(dir(awqscope))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = awqscope.nothing
    program = "import awqscope, sys; sys.exit(any(n in sys.modules for n in ('numpy', 'torch')))"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.mark.slow
def test_nothing_collides(wheel: Path, tmp_path: Path) -> None:
    """From a wheel, in an environment where another distribution owns packages of the names that
    our folders have, in a directory that has them too: a run with workers, its proof, a script."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    packages = next(environment.glob("lib/python*/site-packages"))
    # The libraries are those that are here; links of an editable install in there lead nowhere.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    zipfile.ZipFile(wheel).extractall(packages)
    for folder in (packages, tmp_path / "work"):
        for name in TAKEN:
            (folder / name).mkdir(parents=True)
            (folder / name / "__init__.py").write_text(f"OWNER = 'theirs, in {folder.name}'\n")
    python = environment / "bin" / "python"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def carry_out(*arguments: str) -> str:
        return subprocess.run(
            [python, *arguments],
            cwd=tmp_path / "work",
            env=clean,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    for name in TAKEN:
        program = f"import awqscope.app.cli, {name}; print({name}.OWNER)"
        assert carry_out("-P", "-c", program) == "theirs, in site-packages\n"
        assert carry_out("-c", program) == "theirs, in work\n"
    small = ["--windows=2", "--calib-windows=1", "--seq-len=64", "--calib-seq-len=64"]
    demo = carry_out("-c", "from awqscope.app.demo import find_demo; print(find_demo())").strip()
    texts = [f"--calib={demo}/calib.txt", f"--valid={demo}/valid.txt"]
    carry_out("-m", "awqscope", "run", demo, *texts, *small, "--out=run", "--workers=2")
    script = "import awqscope; print(len(awqscope.read_scores('run').units), awqscope.__file__)"
    count, where = carry_out("-c", script).split()
    assert int(count) > 8 and Path(where).is_relative_to(packages)
