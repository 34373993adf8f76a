"""What is said of int8 inputs."""

import pytest

from awqscope.app.words.studies.activations import (
    list_columns,
    list_missing,
    list_rows,
    list_units,
    unit_columns,
    view_rows,
    write_answer,
    write_damage,
)
from awqscope.diagnose.studies.int8_inputs.answer import INT8, LLM_INT8, METHODS, SMOOTHQUANT
from tests.help.int8 import make_activations, make_damage, make_measured


def test_findings_name_who_refuses_and_what_repairs_it() -> None:
    weights, plain, split, smoothed, *repaired = write_answer(make_activations())
    assert weights == "Block 5 refuses 4-bit weights."
    assert plain == (
        "int8 by token in every block costs KL 0.05000 (0.04500 to 0.05500); block 3 refuses it: "
        "KL 100.0× the other blocks' median."
    )
    assert "no block refuses it. It keeps 2.1% of the input channels of 5.down" in split
    assert smoothed.endswith("It chose α from 0.4 to 0.8.")
    assert repaired == [
        "LLM.int8 repairs block 3: KL alone 0.04000 → 0.00040.",
        "SmoothQuant repairs block 3: KL alone 0.04000 → 0.00040.",
    ]


def test_several_blocks_are_listed_and_nothing_is_repaired_that_still_refuses() -> None:
    answer = make_activations(make_measured(INT8, {1, 3}), make_measured(LLM_INT8, {3}))
    said = write_answer(answer)
    assert "blocks 1 and 3 refuse it." in said[1]
    assert said[3:] == ["LLM.int8 repairs block 1: KL alone 0.04000 → 0.00040."]
    assert len(write_answer(make_activations(make_measured(LLM_INT8)))) == 2


@pytest.mark.parametrize(("after", "repaired"), [(0.039, True), (0.041, False)])
def test_a_block_that_costs_more_is_not_repaired(after: float, repaired: bool) -> None:
    """Refusing is told from the other blocks: where all cost more, none does."""
    smoothed = make_measured(SMOOTHQUANT)
    damage = make_damage(after)
    blocks = [each.changed(isolated=damage) for each in smoothed.blocks]
    plain, worse = make_measured(INT8, {3}), smoothed.changed(blocks=blocks)
    said = write_answer(make_activations(plain, worse))
    assert any("repairs block 3" in sentence for sentence in said) == repaired


def test_a_line_a_block() -> None:
    answer = make_activations()
    assert list(list_columns(answer).values()) == [
        *("Block", "4-bit weights", "int8 by token", "LLM.int8", "SmoothQuant")
    ]
    rows = list_rows(answer)
    assert [row["block"] for row in rows] == list(range(8))
    assert rows[5]["weights"] == "0.200000 [0.180000, 0.220000] ▲ refuses"
    assert rows[3][INT8].endswith("▲ refuses")
    assert rows[3][LLM_INT8] == "0.000400 [0.000360, 0.000440]"
    assert write_damage((2e-8, 1e-8, 3e-8)) == "2.0e-08 [1.0e-08, 3.0e-08]"


def test_views_and_units_of_a_method() -> None:
    found = make_activations().methods
    row = view_rows(found[0])[3]
    assert row["verdict"].split() == ["▲", "refuses", "z", "=", "12.0"]
    assert row["cumulative"] == "0.040000 [0.036000, 0.044000]"
    assert unit_columns(found[0]) == {} and list_units(found[0]) == []
    assert list_units(found[1])[1] == {"unit": "5.down", "value": "2.10%"}
    assert list_units(found[2])[0] == {"unit": "5.qkv", "value": "0.4"}


def test_what_is_yet_to_be_measured() -> None:
    assert list_missing(None) == list(METHODS)
    assert list_missing(make_activations(make_measured(INT8))) == [LLM_INT8, SMOOTHQUANT]
    assert list_missing(make_activations()) == list(METHODS)
