"""Every number by text, in words: the same on the terminal, on the page, in reports and in JSON."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.app.dashboard.sections.by_text import find_numbers, text_cards
from awqscope.app.report.contents import read_findings
from awqscope.app.report.page import write_page
from awqscope.app.report.texts import text_tables
from awqscope.app.store import Store
from awqscope.app.words.texts import (
    TEXT_COLUMNS,
    block_text_rows,
    ratio_tiles,
    text_rows,
    write_block_texts,
    write_worst_text,
)
from awqscope.diagnose.gate.block_texts import read_block_texts
from awqscope.diagnose.gate.evidence import read_numbers
from awqscope.diagnose.gate.findings import Finding
from awqscope.diagnose.gate.texts import RunNumbers, TextNumbers
from awqscope.diagnose.runs.directory import RunDirectory
from tests.help.runs import SAMPLE, change_record, cut_texts, write_comparison, write_run

RECORD = RunDirectory(SAMPLE).read()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on three texts."""
    return cut_texts(write_run(tmp_path_factory.mktemp("runs")), prose=15, code=14, chat=11)


@pytest.fixture(scope="module")
def numbers(path: Path) -> RunNumbers:
    run = RunDirectory(path)
    return read_numbers(run, run.read())


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def make_text(name: str, kl: float, half: float, windows: int = 20) -> TextNumbers:
    found = Finding(kl, kl - half, kl + half, 100 * windows)
    return TextNumbers(name, 0, windows, 100 * windows, {}, {"mixed": {"kl": found}})


def say(*texts: TextNumbers) -> str:
    return write_worst_text(RunNumbers(texts[0], texts, {}), RECORD)


def test_a_table_has_a_line_a_text_and_model(numbers: RunNumbers) -> None:
    rows = text_rows(numbers, RECORD)
    assert [row["text"][0] for row in rows if row["text"][0]] == [
        *("prose.txt", "code.txt", "chat.txt"),
        "all texts",
    ]
    assert [row["model"][0] for row in rows] == ["16-bit", "4-bit", "mixed"] * 4
    assert all(set(row) == set(TEXT_COLUMNS) for row in rows)
    code = numbers.texts[1]
    kl, recovered = code.find("mixed", "kl"), code.recovered
    assert kl is not None and isinstance(recovered, Finding)
    line = rows[5]
    assert line["kl"] == (f"{kl.value:.5f}", f"[{kl.low:.5f}, {kl.high:.5f}]")
    assert line["recovered"][0] == f"{recovered.value:.1%}"
    assert line["ppl"][0] == f"{code.ppl['mixed']:.3f}"
    assert rows[3]["kl"] == rows[4]["recovered"] == ("", "")


def test_the_worst_text_is_named_with_its_interval_and_how_sure_that_is() -> None:
    apart = say(make_text("a/x.txt", 0.1, 0.01), make_text("b/y.txt", 0.3, 0.01))
    assert apart == (
        "Of 2 texts y.txt is hurt most: KL 0.30000 [0.29000, 0.31000] of the mixed model, against "
        "0.10000 [0.09000, 0.11000] in x.txt, the least."
    )
    near = say(*(make_text(name, kl, 0.05) for name, kl in (("a", 0.1), ("b", 0.29), ("c", 0.3))))
    assert near.startswith("Of 3 texts c is hurt most")
    assert near.endswith("It is not sure to be worse than b: the intervals overlap.")
    few = say(make_text("a", 0.1, math.inf, 3), make_text("b", 0.3, math.inf, 3))
    assert "KL 0.30000 of the mixed model" in few and "∞" not in few and "inf" not in few
    assert few.endswith("A text of fewer than 6 windows has no interval.")
    assert say(make_text("a", 0.1, 0.01)) == ""


def test_blocks_by_text_are_means_of_the_tokens_that_are_kept(path: Path) -> None:
    run = RunDirectory(path)
    found = read_block_texts(run, run.read())
    rows = pq.read_table(path / "tokens.parquet").to_pandas()
    kept = rows[rows["block_kl"].notna()]
    texts = np.select([kept["window"] < 15, kept["window"] < 29], ["prose", "code"], "chat")
    for block in run.read().measured.flagged:
        alone = kept["block_kl"].map(lambda kl, block=block: float(kl[block]))
        expected = alone.groupby(texts).mean()
        for each in found.blocks[block]:
            name = Path(each.text).stem
            assert each.kl == pytest.approx(expected[name], rel=1e-5)
            assert each.windows == kept["window"][texts == name].nunique()
        said = write_block_texts(found)
        assert f"block {block} hurts {expected.idxmax()}.txt most" in said
        assert said.startswith("Known of 8 windows alone")
        assert block_text_rows(found)[0]["text"] == f"{expected.idxmax()}.txt"


def test_where_the_kept_windows_are_of_one_text_nothing_is_compared(tmp_path: Path) -> None:
    rows = pq.read_table(SAMPLE / "tokens.parquet", columns=["window", "block_kl"]).to_pandas()
    last = int(rows["window"][rows["block_kl"].notna()].max())
    path = cut_texts(write_run(tmp_path), whole=last + 1, rest=40 - last - 1)
    run = RunDirectory(path)
    said = write_block_texts(read_block_texts(run, run.read()))
    assert said.endswith("Of the other texts nothing is known by block.")


def test_the_terminal_prints_every_text_and_scripts_get_the_same(
    path: Path, numbers: RunNumbers
) -> None:
    shown = " ".join(invoke("show", path).split())
    for row in text_rows(numbers, RECORD):
        for key in ("ppl", "kl", "kl_p999", "top1_agreement", "recovered"):
            assert row[key][0] in shown
    assert write_worst_text(numbers, RECORD) in shown
    for name, form in (("ppl_ratio", ".4f"), ("delta_p", "+.2%"), ("rms_delta_p", ".2%")):
        found = numbers.whole.find("mixed", name)
        assert found is not None and format(found.value, form).replace("-", "−") in shown
    told = json.loads(invoke("show", path, "--json"))
    assert told["kl"] == json.loads((path / "run.json").read_text())["headline"]["kl"]
    assert [part["text"] for part in told["texts"]] == [part.text for part in numbers.texts]
    for part, said in zip(numbers.texts, told["texts"], strict=True):
        found = part.find("uniform", "rms_delta_p")
        assert found is not None
        assert said["rms_delta_p"]["uniform"] == [found.value, found.low, found.high]
        ratio = said["ppl_ratio"]["mixed"]
        assert said["ln_ppl_ratio"]["mixed"] == pytest.approx(np.log(ratio))
        # The p99.9 of so few tokens has no upper bound.
        assert said["kl_p999"]["mixed"][2] is None
    gate = json.loads(invoke("gate", path, "--json", "-"))
    assert [part["kl"] for part in gate["texts"]] == [p["kl"]["mixed"] for p in told["texts"]]
    (worst,) = [limit for limit in gate["limits"] if limit["name"] == "limits.max_slice_kl"]
    assert [worst["value"], worst["low"], worst["high"]] == max(p["kl"] for p in gate["texts"])


def test_page_and_report_show_the_same_table(path: Path, numbers: RunNumbers) -> None:
    store = Store(path.parent)
    assert find_numbers(store, path.name) == numbers
    (card,) = text_cards(store, store.summary(path.name), numbers)
    drawn = json.dumps(card.to_plotly_json(), default=lambda part: part.to_plotly_json())
    tables, rows = text_tables(read_findings(path)), text_rows(numbers, RECORD)
    page = write_page(read_findings(path))
    assert len(tables) == 2
    for row, line in zip(rows, tables[0].rows, strict=True):
        assert line["kl"] == " ".join(row["kl"]).strip() and line["kl"] in page
        assert all(part in drawn for part in row["kl"])
    for tile in ratio_tiles(numbers, RECORD):
        assert tile.label in page and tile.value in page
    assert len(ratio_tiles(numbers, RECORD)) == 3


def test_a_single_text_has_no_table_and_missing_tokens_are_said(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    assert "all texts" not in invoke("show", path)
    store = Store(tmp_path)
    assert text_cards(store, store.summary("sample"), store.numbers("sample")) == []
    (path / "tokens.parquet").write_bytes(b"damaged")
    shown = invoke("show", path)
    assert "by text and Δp" in shown and "cannot be read" in shown
    headline: dict[str, Any] = json.loads((path / "run.json").read_text())["headline"]
    assert json.loads(invoke("show", path, "--json")) == headline
    store = Store(tmp_path)
    assert find_numbers(store, "sample") is None
    assert ratio_tiles(None, RECORD) == []


def test_a_comparison_is_told_of_its_candidate(tmp_path: Path) -> None:
    path = cut_texts(write_comparison(tmp_path), prose=24, code=16)
    run = RunDirectory(path)
    found = read_numbers(run, run.read())
    assert {row["model"][0] for row in text_rows(found, run.read())} == {"16-bit", "candidate"}
    assert "of the candidate model" not in write_worst_text(found, run.read())
    first, *_ = ratio_tiles(found, run.read())
    assert first.label == "PPL ratio, candidate"


def test_texts_of_one_name_are_told_apart(numbers: RunNumbers, path: Path) -> None:
    specs = ("/data/a/valid.txt", "/data/b/valid.txt", "hub:wiki:test")
    named = tuple(replace(part, text=spec) for part, spec in zip(numbers.texts, specs, strict=True))
    rows = text_rows(replace(numbers, texts=named), RECORD)
    assert [row["text"][0] for row in rows[::3]] == [
        *("a/valid.txt", "b/valid.txt", "hub:wiki:test"),
        "all texts",
    ]


def test_slices_that_are_not_its_windows_leave_a_report(tmp_path: Path) -> None:
    path = cut_texts(write_run(tmp_path), a=20, b=20)
    definition = json.loads((path / "run.json").read_text())["ppl_definition"]
    change_record(path, ppl_definition=definition | {"slices": definition["slices"][:1]})
    assert "its slices are not its windows" in invoke("show", path)
    assert text_tables(read_findings(path)) == []
