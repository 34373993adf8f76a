"""Where a checkpoint goes: which rows are about it, which versions they cover, and that what the
table says of the versions installed here is so."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.checkpoints.destinations import (
    DESTINATIONS,
    Destination,
    Kind,
    describe_kind,
    judge_installed,
    list_destinations,
    read_kind,
)
from awqscope.mixedprec.checkpoints.serving import LOADS, REFUSES, WITHOUT_ZEROS
from awqscope.mixedprec.checkpoints.writer import write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.recipes.recipe import make_recipe
from awqscope.mixedprec.scheme import Scheme

MIXED = Kind("compressed-tensors", zero_points=True, several=True)
SYMMETRIC = Kind("compressed-tensors", zero_points=False, several=True)
UNIFORM = Kind("compressed-tensors", zero_points=True, several=False)
GEMM = Kind("awq", zero_points=True, several=False)
WINDOWS = torch.randint(0, 300, (2, 32), generator=torch.Generator().manual_seed(0))
KINDS = (MIXED, SYMMETRIC, UNIFORM, GEMM)


def outcome(kind: Kind, package: str, number: str) -> str:
    (row,) = [row for row, _ in judge_installed(kind, {package: number})]
    return row.outcome


@pytest.mark.parametrize(
    ("kind", "number", "expected"),
    [
        (MIXED, "0.17.1", LOADS),
        (MIXED, "0.18.0", REFUSES),
        (MIXED, "0.20.1", REFUSES),
        (UNIFORM, "0.19.0", REFUSES),
        (SYMMETRIC, "0.20.1", LOADS),
        (SYMMETRIC, "0.14.0", REFUSES),
    ],
)
def test_zero_points_decide_which_versions_do(kind: Kind, number: str, expected: str) -> None:
    rows = [r for r, _ in judge_installed(kind, {"compressed-tensors": number})]
    assert [row.outcome for row in rows if row.reader == "transformers"] == [expected]


@pytest.mark.parametrize("reader", ["peft", "lm-eval"])
def test_who_loads_through_transformers_does_as_it_does(reader: str) -> None:
    package = reader.replace("-", "_")

    def settle(kind: Kind, **beside: str) -> Destination:
        versions = {package: "1.0"} | {name.replace("_", "-"): v for name, v in beside.items()}
        (row,) = [row for row, _ in judge_installed(kind, versions) if row.reader == reader]
        return row

    assert settle(MIXED, compressed_tensors="0.17.1").outcome == LOADS
    assert settle(SYMMETRIC, compressed_tensors="0.20.1").outcome == LOADS
    refused = settle(MIXED, compressed_tensors="0.20.1")
    assert refused.outcome == REFUSES
    assert refused.why == (
        "it loads through transformers, which refuses it (compressed-tensors 0.20.1)"
    )
    assert refused.remedy == WITHOUT_ZEROS
    alone = settle(MIXED)
    assert alone.outcome == REFUSES and "needs compressed-tensors" in alone.why
    assert ">=0.15" in alone.why and ">=0.18" not in alone.why
    (listed,) = [row for row in list_destinations(MIXED) if row.reader == reader]
    assert (listed.outcome, listed.condition) == (LOADS, " where transformers does")


def test_every_reader_says_something_of_every_kind_of_ours() -> None:
    assert len({row.reader for row in DESTINATIONS}) >= 10
    for kind in KINDS:
        rows = list(list_destinations(kind))
        assert len({(row.reader, row.package, row.versions) for row in rows}) == len(rows)
        readers = {row.reader for row in rows}
        assert {"transformers", "vLLM", "SGLang", "TGI", "MLX", "CTranslate2"} <= readers
        assert all(row.remedy for row in rows if row.outcome != LOADS)


def test_a_version_that_cannot_be_read_is_covered_by_nothing() -> None:
    assert list(judge_installed(MIXED, {"compressed-tensors": "of today"})) == []


def test_a_gemm_checkpoint_goes_elsewhere() -> None:
    assert outcome(GEMM, "mlx-lm", "0.32.2") == LOADS
    assert outcome(MIXED, "mlx-lm", "0.32.2") == REFUSES


def write_mixed(path: Path, folder: Path, symmetric: bool) -> Path:
    """A mixed checkpoint of the model in `path`."""
    model, schemes = open_model(str(path)), {4: Scheme(4, 64, symmetric), 8: Scheme(8, 64, True)}
    search_model(model, WINDOWS, list(schemes.values()), folder / "awq")
    recipe = make_recipe("", model.family, model.blocks, 4, changed={"0.o": 8})
    write_checkpoint(folder / "out", model, recipe, folder / "awq", schemes)
    return folder / "out"


@pytest.mark.parametrize("symmetric", [False, True])
def test_our_checkpoints_are_of_the_kind_they_are_and_load_here(
    symmetric: bool, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    out = write_mixed(make_model("llama"), tmp_path, symmetric)
    assert read_kind(out) == Kind("compressed-tensors", not symmetric, True)
    assert AutoModelForCausalLM.from_pretrained(out)(WINDOWS).logits.isfinite().all()
    result = CliRunner().invoke(app, ["check", str(out), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    (here,) = [row for row in found["installed"] if row["reader"] == "transformers"]
    assert (here["outcome"], here["version"]) == (LOADS, version("compressed-tensors"))
    assert found["serving"]["vllm"] == LOADS
    assert found["tgi"]["tgi"] == (LOADS if symmetric else REFUSES)
    shown = CliRunner().invoke(app, ["check", str(out)]).stdout
    assert f"transformers loads it (compressed-tensors {version('compressed-tensors')})" in shown
    assert f"and against TGI's: it {'loads' if symmetric else 'refuses'} it" in shown


def test_an_installed_reader_that_refuses_gives_exit_code_1(
    make_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write_mixed(make_model("llama"), tmp_path, symmetric=False)
    monkeypatch.setattr("awqscope.app.commands.check.version", lambda name: "0.20.1")
    result = CliRunner().invoke(app, ["check", str(out)])
    assert result.exit_code == 1
    assert "transformers refuses it (compressed-tensors 0.20.1)" in result.stdout
    assert (
        'pip install "compressed-tensors~=0.17.1" psutil, or run with --symmetric' in result.stdout
    )


def test_a_broken_rule_gives_exit_code_1(make_model: Callable[..., Path], tmp_path: Path) -> None:
    out = write_mixed(make_model("llama"), tmp_path, symmetric=True)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"]["ignore"].append("re:.*layers.0.self_attn.q_proj$")
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    result = CliRunner().invoke(app, ["check", str(out)])
    assert result.exit_code == 1
    assert "Refused by vLLM" in result.stdout


def test_what_is_no_checkpoint_of_ours(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no config"):
        read_kind(tmp_path)
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}')
    with pytest.raises(InputError, match="of a format that awqscope writes"):
        read_kind(tmp_path)
    (tmp_path / "config.json").write_text('{"quantization_config": 3}')
    with pytest.raises(InputError, match="is damaged"):
        read_kind(tmp_path)
    assert describe_kind({"quant_method": "compressed-tensors", "format": "dense"}) is None
