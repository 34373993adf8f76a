"""What is said of two models side by side: their own numbers, and no verdict without ground."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from awqscope.app.dashboard.pages.compared.two_runs import (
    NO_DELTA_PPL,
    differences_card,
    follow_choice,
    read_sides,
)
from awqscope.app.dashboard.urls import Page, read_address
from awqscope.app.store import Store
from awqscope.app.words.compared.two_models import (
    block_differences,
    blocks_summary,
    different_settings,
    headline_rows,
    is_judged,
    name_side,
    write_pair_verdict,
)
from awqscope.diagnose.gate.findings import Finding, Missing
from awqscope.diagnose.gate.paired import Pair, Side, choose_side
from awqscope.diagnose.runs.directory import RunDirectory
from tests.help.runs import SAMPLE, write_comparison, write_run

RECORD = json.loads((SAMPLE / "run.json").read_text(encoding="utf-8"))
HEADLINE = RECORD["headline"]
UNKNOWN = dict.fromkeys(("ppl", "kl", "top1_agreement"), Missing("why"))


def side(path: Path = SAMPLE, model: str = "") -> Side:
    run = RunDirectory(path)
    return choose_side(run, run.read(), model)


def pair(kl: tuple[float, float, float], ppl: tuple[float, float, float] = (0, -1, 1)) -> Pair:
    changes = {
        "kl": Finding(*kl, 10, 5),
        "ppl": Finding(*ppl, 10, 5),
        "top1_agreement": Finding(0.268, 0.25, 0.281, 10, 5),
    }
    return Pair(True, changes)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (pair((-0.2, -0.3, -0.1)), "B is better than A: KL −0.20000 [−0.30000, −0.10000] nats"),
        (pair((0.2, 0.1, 0.3)), "B is worse than A: KL +0.20000"),
        (pair((0.2, -0.1, 0.3)), "A and B cannot be told apart: KL +0.20000"),
        (pair((0.2, -math.inf, math.inf)), "There are too few windows to tell A and B apart"),
        (pair((-0.2, -0.3, -0.1), (2, 1, 3)), "but its perplexity is higher"),
        (pair((0.2, 0.1, 0.3), (-2, -3, -1)), "but its perplexity is lower"),
        (Pair(True, UNKNOWN), "Which of the two is better cannot be told: why."),
        (Pair(False, UNKNOWN), "A and B were measured on different tokens"),
        (Pair(False, UNKNOWN, "it is so"), "A and B are the same model: it is so."),
    ],
)
def test_the_verdict(found: Pair, said: str) -> None:
    verdict = write_pair_verdict(side(model="uniform"), side(), found)
    assert said in verdict
    if said.startswith("B is better"):
        assert "same top token +26.8 points [+25.0, +28.1]" in verdict
        size = HEADLINE["bytes"]["mixed"] / HEADLINE["bytes"]["uniform"] - 1
        assert f"size +{size:.1%}" in verdict


def test_each_side_shows_the_numbers_of_its_model(tmp_path: Path) -> None:
    """A candidate's are kept in uniform's place, and stand beside what was chosen of the other."""
    candidate = side(write_comparison(tmp_path))
    rows = {row["what"]: row for row in headline_rows(side(), candidate, pair((0.1, 0, 0.2)))}
    for what, entry, form in (
        ("Perplexity", "ppl", ".3f"),
        ("KL, mean, nats a token", "kl", ".5f"),
        ("KL, p99.9", "kl_p999", ".3f"),
        ("Same top token", "top1_agreement", ".1%"),
    ):
        expected = format(HEADLINE[entry]["mixed"], form)
        assert (rows[what]["a"], rows[what]["b"]) == (expected, expected), what
    assert rows["KL, mean, nats a token"]["interval"] == "[+0.00000, +0.20000]"
    assert rows["Same top token"]["difference"] == "+26.8 points"
    uniform = headline_rows(side(model="uniform"), candidate, pair((0.1, 0, 0.2)))
    assert uniform[2]["a"] == format(HEADLINE["kl"]["uniform"], ".5f")
    assert name_side(candidate) == "candidate, 4/8-bit compressed-tensors"
    assert name_side(side(model="uniform")) == "uniform, 4-bit AWQ"


def test_on_other_tokens_only_sizes_are_subtracted() -> None:
    rows = headline_rows(side(), side(), Pair(False, UNKNOWN))
    assert {row["what"] for row in rows if row["difference"] not in ("", "–")} == {
        "Size of all weights"
    }
    assert not any(row["interval"] for row in rows)
    # Where nobody can tell, the numbers are subtracted, without an interval.
    rows = headline_rows(side(), side(), Pair(None, UNKNOWN))
    assert rows[0]["difference"] == "+0.000" and not rows[0]["interval"]


def test_the_same_files_elsewhere_are_no_setting_that_differs(tmp_path: Path) -> None:
    spec = {**RECORD["spec"], "model": "/b/m", "valid": "/b/v.txt", "calib": "/b/c.txt"}
    texts = {
        "ppl_definition": {**RECORD["ppl_definition"], "text": "/b/v.txt"},
        "calibration": {**RECORD["calibration"], "text": "/b/c.txt"},
    }
    moved = write_run(tmp_path, "moved", model="/b/m", spec=spec, **texts)
    assert different_settings(side(), side(moved)) == []
    texts["ppl_definition"] |= {"text_sha256": "0"}
    other = write_run(tmp_path, "other", spec={**spec, "group_size": 64}, **texts)
    found = {row["what"]: row for row in different_settings(side(), side(other))}
    assert set(found) == {"validation text", "Group size"}
    assert found["validation text"]["b"] == "/b/v.txt (0…)"


def test_what_a_comparison_does_not_have_differs_from_nothing(tmp_path: Path) -> None:
    candidate = side(write_comparison(tmp_path))
    rows = different_settings(side(), candidate)
    assert [row["what"] for row in rows] == ["kind"]
    rows = different_settings(side(model="uniform"), candidate)
    assert {row["what"]: row["b"] for row in rows}["widths"] == "4 bits, but 5.qkv and 5.o at 8"
    assert "not set" not in str(rows)


def test_differences_of_blocks_by_hand() -> None:
    found = block_differences(
        {0: (1, 0.7, 1.4), 1: (2, 2, 2), 3: (1, 1, 1)}, {1: (5, 4, 6), 0: (1, 1, 1)}
    )
    assert [row["block"] for row in found] == [0, 1]
    first, second = found
    assert (first["difference"], first["low"], first["high"]) == pytest.approx((0, -0.4, 0.3))
    assert (second["difference"], second["low"], second["high"]) == pytest.approx((3, 2, 4))


def test_blocks_are_said_to_be_better_only_with_ground() -> None:
    rows = block_differences({0: (1, 1, 1), 1: (1, 1, 1)}, {0: (2, 2, 2), 1: (0, 0, 0)})
    a, b = side(model="uniform"), side()
    said = blocks_summary(rows, a, b, pair((0, 0, 0)), "kl", "+.5f")
    assert said.startswith("Better in B: 1 (−1.00000). Worse in B: 0 (+1.00000).")
    assert "A: each block quantized alone. B: each block alone at the recipe's widths" in said
    for found in (Pair(False, UNKNOWN), Pair(None, UNKNOWN), Pair(True, UNKNOWN, "one")):
        said = blocks_summary(rows, a, b, found, "kl", "+.5f")
        assert not is_judged(found)
        assert "in B" not in said


def costs(model: str) -> dict[int, tuple[float, float, float]]:
    found = Store(SAMPLE.parent).block_costs("sample", model)
    assert not isinstance(found, Missing)
    return dict(found)


def test_a_mixed_models_blocks_cost_what_their_units_do() -> None:
    """Block 5 is all that the sample's recipe changes; nothing of it stays at its uniform cost."""
    store = Store(SAMPLE.parent)
    mixed, uniform = costs("mixed"), costs("uniform")
    alone = {
        r["block"]: r["kl"] for r in store.table("sample", "blocks") if r["view"] == "isolated"
    }
    assert {block: cost[0] for block, cost in uniform.items()} == alone
    assert {block for block in alone if mixed[block] != uniform[block]} == {5}
    widths = {"5.qkv": 8, "5.o": 8, "5.gate_up": 4, "5.down": 4}
    units = [
        row for row in store.table("sample", "units") if widths.get(row["unit"]) == row["bits"]
    ]
    assert len(units) == 4
    expected = sum(
        row["estimated_kl"] if row["exact_kl"] is None else row["exact_kl"] for row in units
    )
    assert mixed[5][0] == pytest.approx(expected)


def test_delta_ppl_of_a_mixed_model_by_block_is_refused_not_borrowed() -> None:
    store = Store(SAMPLE.parent)
    a, b = side(), side(model="uniform")
    found = pair((0.1, 0, 0.2))
    assert NO_DELTA_PPL in str(differences_card(store, a, b, found, "delta_ppl"))
    assert NO_DELTA_PPL not in str(differences_card(store, b, b, found, "delta_ppl"))


def read(search: str) -> Page:
    return read_address("/compare", search)


def test_sides_are_of_the_address(tmp_path: Path) -> None:
    write_run(tmp_path, "run")
    write_comparison(tmp_path)
    store = Store(tmp_path)

    def models(search: str) -> dict[str, str]:
        return {name: found.model for name, found in read_sides(store, read(search)).items()}

    assert models("?a=run&b=candidate") == {"a": "mixed", "b": "candidate"}
    assert models("?a=run&b=run&model_b=uniform") == {"a": "mixed", "b": "uniform"}
    assert models("?a=candidate&model_a=uniform&model_b=x&b=run") == {
        "a": "candidate",
        "b": "mixed",
    }
    assert models("?a=run") == {"a": "mixed"}


def test_what_is_chosen_goes_into_the_address(tmp_path: Path) -> None:
    write_run(tmp_path, "run")
    write_comparison(tmp_path)
    store = Store(tmp_path)

    def follow(search: str, run: str, other: str | None, **models: str) -> Any:
        page = read(search)
        return follow_choice(page, read_sides(store, page), {"a": run, "b": other}, models)

    here = "?a=run&b=candidate"
    # As the page shows it: nothing to do.
    assert follow(here, "run", "candidate", a="mixed", b="candidate") is None
    assert follow("?a=run", "run", None, a="mixed") is None
    wanted = {"a": "run", "b": "candidate", "model_a": "uniform", "model_b": ""}
    assert follow(here, "run", "candidate", a="uniform", b="candidate") == wanted
    # A run chosen anew brings its own model.
    uniform = f"{here}&model_a=uniform"
    assert follow(uniform, "run", "candidate", a="uniform", b="candidate") is None
    wanted = {"a": "candidate", "b": "candidate", "model_a": "", "model_b": ""}
    assert follow(uniform, "candidate", "candidate", a="uniform", b="candidate") == wanted
