"""What the makers' scripts say, held against what was measured: the parts without environments."""

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from examples.makers import __main__ as driver
from examples.makers.shared import making
from examples.makers.shared.table import (
    HEADINGS,
    Measured,
    Row,
    Said,
    from_json,
    judge,
    list_cells,
    read_last,
    read_measured,
    to_json,
    write_part,
)
from examples.makers.shared.workplace import MAKING
from tests.help.root import ROOT

SAID = Said("tool 1.2", "sym", "gptq", math.log(70), "loaded by transformers")
MEASURED = Measured(60.0, 70.05, 0.1, {"4": 50, "8": 4, "16": 2})
MAKERS = ROOT / "examples" / "makers"
SCRIPTS = sorted(path.with_suffix(".py") for path in MAKERS.glob("*.txt"))


def test_the_last_line_is_what_a_script_says() -> None:
    line = {"maker": "tool 1.2", "variant": "sym", "format": "gptq", "nll": math.log(70)}
    line |= {"how": "loaded by transformers", "seconds": 3}
    assert read_last(f"loading\n{json.dumps(line)}\n\n") == SAID
    assert read_last(json.dumps(line | {"nll": None, "unable": "GPU only"})).unable == "GPU only"


@pytest.mark.parametrize(
    ("output", "wanted"),
    [
        ("", "no JSON object"),
        ("done\n", "Expecting value"),
        ("[1]", "no JSON object"),
        ('{"maker": "tool 1.2"}', "lacks entries"),
        ('{"maker": "t", "variant": "v", "format": "f", "nll": NaN}', "likelihood is nan"),
    ],
)
def test_a_last_line_that_says_nothing(output: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        read_last(output)


def test_perplexities_are_held_to_how_they_were_taken() -> None:
    assert judge(SAID, MEASURED).fault is None
    apart = Measured(60.0, 70.4, 0.1)
    assert judge(SAID, apart).fault == "0.57% apart, 0.20% allowed"
    assert judge(Said("t", "v", "f", math.log(70), "in memory before export"), apart).fault is None
    assert judge(Said("t", "v", "f", math.log(70), "guessed"), Measured(60, 71, 0.1)).fault
    assert judge(Said("t", "v", "f"), apart).fault is None


def test_measured_is_read_from_a_record() -> None:
    headline = {"ppl": {"reference": 60.0, "candidate": 70.05}, "kl": {"candidate": 0.1}}
    record = {"headline": headline, "candidate": {"bits": {"4": 50, "8": 4, "16": 2}}}
    assert read_measured(record) == MEASURED


def test_rows_are_kept_as_they_are() -> None:
    for row in (judge(SAID, MEASURED), Row(SAID, fault="it broke")):
        assert from_json(json.loads(json.dumps(to_json(row)))) == row


def test_the_page_has_a_line_a_row() -> None:
    unable = Said("tool 1.2", "gemv", "awq", unable="needs a | GPU")
    rows = [judge(SAID, MEASURED), Row(unable), Row(SAID, fault="compare: two\nlines")]
    lines = [line for line in write_part(rows, ["today"]).splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert {len(found) for found in cells} == {len(HEADINGS)}
    assert [found[-1].strip() for found in cells[2:]] == [
        "agrees",
        "needs a \\| GPU",
        "compare: two lines",
    ]
    assert list_cells(rows[0])[3:8] == ["4/8/16", "60.000", "70.050", "0.10000", "70.000"]


def test_kept_rows_are_true_until_their_script_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "HERE", tmp_path)
    monkeypatch.setattr(driver, "KEPT", tmp_path / "kept")
    for suffix in ("py", "txt"):
        (tmp_path / f"tool.{suffix}").touch()
    (tmp_path / "notes.txt").touch()
    assert driver.list_tools() == ["tool"]
    assert driver.read_kept("tool", "sym") is None
    kept = tmp_path / "kept" / "tool" / "sym" / "row.json"
    kept.parent.mkdir(parents=True)
    row = judge(SAID, MEASURED)
    kept.write_text(json.dumps(to_json(row)))
    assert driver.list_rows() == [row]
    later = kept.stat().st_mtime + 1
    (tmp_path / "tool.txt").write_text("tool==2")
    os.utime(tmp_path / "tool.txt", (later, later))
    assert driver.list_rows() == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_stand_alone_and_pin_what_they_need(script: Path) -> None:
    """A tool's environment has nothing of ours; its own torch would be another one."""
    text = script.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(from|import) (awqscope|examples|tests)\b", text, re.MULTILINE)
    # Last among the folders that are searched: a module of ours must not pass for a tool's.
    assert "sys.path.append(" in text and "sys.path.insert(" not in text
    assert "from making import" in text
    lines = script.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins[0].startswith("torch==")
    assert all("==" in pin for pin in pins)


def test_what_scripts_share_needs_nothing_of_ours() -> None:
    text = MAKING.read_text(encoding="utf-8")
    imported = set(re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE))
    assert imported == {
        "argparse",
        "json",
        "collections",
        "pathlib",
        "typing",
        "torch",
        "safetensors",
    }


def test_measuring_is_the_models_own_loss(make_model: Callable[..., Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_model("llama"), dtype=torch.float32).eval()
    windows = torch.randint(0, 300, (3, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        losses = [model(input_ids=w[None], labels=w[None]).loss.item() for w in windows]
    assert making.measure(model, windows) == pytest.approx(sum(losses) / 3, rel=1e-6)


def test_a_fixture_is_one_linear_as_it_stands_on_disk(tmp_path: Path) -> None:
    parts = {"weight": torch.ones(2, 3), "scale": torch.zeros(2)}
    save_file({f"a.b.{part}": t for part, t in parts.items()}, tmp_path / "one.safetensors")
    save_file({"a.bc.weight": torch.ones(1)}, tmp_path / "two.safetensors")
    config = {"quantization_config": {"bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    file = tmp_path / "fixture"
    expected = torch.arange(6.0).view(3, 2).T
    making.write_fixture(str(file), tmp_path, "a.b", expected, maker="tool 1", method="m")
    found = load_file(file)
    assert found.keys() == {"stored.weight", "stored.scale", "expected"}
    assert torch.equal(found["expected"], expected)
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    wanted = {"maker": "tool 1", "method": "m", "name": "a.b", "tolerance": "1e-6"}
    assert about == {**wanted, "config": json.dumps({"bits": 4})}
