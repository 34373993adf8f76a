"""Models from a hub on loopback, by the real client in a process of its own: what comes, which
revision, what is said where nothing comes, and what a broken transfer leaves."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.help.small_hub import Repository, SmallHub, commit_of, serve_hub

OPEN = """
import sys
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.opening import open_model
try:
    model = open_model(sys.argv[1], revision=sys.argv[2] or None)
except InputError as error:
    print(error)
else:
    print("opened", model.path.name, model.count_parameters())
"""
# Without torch, which most of these need not wait for.
DOWNLOAD = """
import sys
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.hub import download
try:
    print("came", download(sys.argv[1], ["*.json", "*.safetensors"], sys.argv[2] or None).name)
except InputError as error:
    print(error)
"""


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    with serve_hub() as found:
        yield found


@pytest.fixture
def ask(hub: SmallHub, tmp_path: Path) -> Callable[..., str]:
    """What asking for a model by its id says; `changes` are to the environment."""

    def asked(name: str, revision: str = "", program: str = DOWNLOAD, **changes: str) -> str:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
            **changes,
        }
        environment.pop("HF_TOKEN", None)
        command = [sys.executable, "-c", program, name, revision]
        found = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=120
        )
        return found.stdout.strip()

    return asked


@pytest.fixture
def sharded(make_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A model in several files with an index."""
    path = tmp_path / "sharded"
    shutil.copytree(make_model("llama"), path)
    (path / "model.safetensors").unlink()
    whole = AutoModelForCausalLM.from_pretrained(make_model("llama"), dtype=torch.float16)
    whole.save_pretrained(path, max_shard_size="200kB")
    assert len(list(path.glob("*.safetensors"))) > 2
    return path


def test_an_index_and_its_shards_come_and_pickles_do_not(
    hub: SmallHub, ask: Callable[..., str], sharded: Path
) -> None:
    (sharded / "pytorch_model.bin").write_bytes(b"pickle")
    hub.repositories["org/model"] = Repository({"main": sharded})
    assert ask("org/model", program=OPEN).startswith(f"opened {commit_of(sharded)}")
    fetched = {path.rpartition("/")[2] for method, path, _ in hub.asked if method == "GET"}
    assert {path.name for path in sharded.glob("*.safetensors")} <= fetched
    assert "pytorch_model.bin" not in fetched
    # What is in the cache is found without a network too.
    assert ask("org/model", HF_HUB_OFFLINE="1") == f"came {commit_of(sharded)}"


def test_a_revision_is_the_one_that_is_asked_for(
    hub: SmallHub, ask: Callable[..., str], make_model: Callable[..., Path]
) -> None:
    small, large = make_model("llama"), make_model("llama", num_hidden_layers=3)
    hub.repositories["org/model"] = Repository({"main": small, "v2": large})
    assert ask("org/model").split()[1] == commit_of(small)
    assert ask("org/model", "v2", program=OPEN).split()[1] == commit_of(large)
    assert ask("org/model", "v3") == (
        "org/model has no revision v3: give a branch, a tag or a commit of it"
    )


def test_who_may_not_have_it_is_told_why(hub: SmallHub, ask: Callable[..., str]) -> None:
    hub.repositories["org/gated"] = Repository({}, (403, "GatedRepo", "Access is restricted"))
    hub.repositories["org/broken"] = Repository({}, (500, "", "Internal error"))
    assert ask("org/gated").startswith("org/gated is gated on the hub, and this account may not")
    assert "HF_TOKEN" in ask("org/gated")
    assert ask("org/nothing").startswith("the hub knows no model org/nothing, or it is private")
    assert ask("org/broken").startswith("the hub did not give org/broken (HTTP 500)")
    assert ask("no such id").startswith("there is no model directory no such id")


def test_without_a_network_it_is_said(ask: Callable[..., str]) -> None:
    nobody = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert ask("org/model", **nobody) == (
        "org/model is neither a local directory nor in the hub's cache, and the hub cannot be "
        "reached: check the network, or give the directory of a model"
    )
    assert "HF_HUB_OFFLINE is set: unset it" in ask("org/model", HF_HUB_OFFLINE="1")


def test_a_transfer_that_breaks_off_goes_on(
    hub: SmallHub, ask: Callable[..., str], make_model: Callable[..., Path]
) -> None:
    """The client keeps what came in pieces of 10 MiB."""
    source = make_model("llama", vocab_size=16384, hidden_size=512)
    size = (source / "model.safetensors").stat().st_size
    assert size > 24 * 2**20
    hub.repositories["org/model"] = Repository(
        {"main": source}, breaks={"model.safetensors": 15 * 2**20}
    )
    assert ask("org/model").startswith("came")
    wanted = [part for _, path, part in hub.asked if path.endswith("model.safetensors") and part]
    assert wanted == [f"bytes={10 * 2**20}-"]


def test_a_cache_that_was_filled_in_part_is_refused(
    hub: SmallHub, ask: Callable[..., str], sharded: Path, tmp_path: Path
) -> None:
    hub.repositories["org/model"] = Repository({"main": sharded})
    assert ask("org/model").startswith("came")
    [snapshot] = (tmp_path / "home" / "hub").glob("models--*/snapshots/*")
    index = json.loads((snapshot / "model.safetensors.index.json").read_text())
    lost = sorted(set(index["weight_map"].values()))[1]
    (snapshot / lost).unlink()
    assert ask("org/model", HF_HUB_OFFLINE="1") == (
        f"the hub's cache holds a part of org/model only: {lost} did not come: check the network "
        "and run it again: whole files that have come are kept"
    )
    assert ask("org/model").startswith("came")


def test_what_lies_here_has_no_revisions(
    ask: Callable[..., str], make_model: Callable[..., Path]
) -> None:
    path = make_model("llama")
    for name in (path, path / "model.safetensors"):
        said = f"{name} is no id on the hub, and has no revisions: leave out --revision"
        assert ask(str(name), "v2", program=OPEN) == said
