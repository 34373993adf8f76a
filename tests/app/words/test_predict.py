"""What a recipe made by hand should come to, on the sample run and on runs made up."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqscope.app.words.predict import predict, read_changes, unit_table, widths_of, write_changes
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import Record
from awqscope.diagnose.runs.scores import read_scores
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import FAMILIES
from awqscope.mixedprec.recipes.recipe import change_recipe, check_fits, load_recipe
from tests.help.root import ROOT

SAMPLE = RunDirectory(ROOT / "reports" / "sample")
RECORD = SAMPLE.read_searched()
HEADLINE = RECORD.measured
UNITS = unit_table(SAMPLE.read_table("units").to_pylist())
RECIPE = load_recipe(SAMPLE.path / "recipe.json")
WIDTHS = [4, 8, 16]
SCORES = read_scores(SAMPLE.path)

changes = st.dictionaries(st.sampled_from(list(UNITS)), st.sampled_from(WIDTHS))


def keep(*units: str) -> Record:
    """The sample's record, had it kept these units at 16 bits: its uniform model is larger."""
    more = sum(UNITS[unit][16]["bytes"] - UNITS[unit][4]["bytes"] for unit in units)
    size = HEADLINE.bytes.changed(uniform=HEADLINE.bytes.uniform + more)
    spec = RECORD.spec.change(keep_fp16=units)
    return RECORD.changed(spec=spec, headline=HEADLINE.changed(bytes=size))


def test_the_uniform_recipe_is_the_uniform_model() -> None:
    for bits in ({}, dict.fromkeys(UNITS, 4)):
        found = predict(RECORD, UNITS, bits)
        assert found.bytes == HEADLINE.bytes.uniform
        assert found.kl == HEADLINE.kl.uniform
        assert found.ppl == pytest.approx(HEADLINE.ppl.uniform)
        assert found.recovered == 0


@pytest.mark.parametrize("kept", [(), ("2.o", "5.down")])
def test_everything_at_16_bits_is_the_reference(kept: tuple[str, ...]) -> None:
    found = predict(keep(*kept), UNITS, dict.fromkeys(UNITS, 16))
    assert found.bytes == HEADLINE.bytes.reference
    assert found.kl == pytest.approx(0, abs=1e-12)
    assert found.ppl == pytest.approx(HEADLINE.ppl.reference)
    assert found.recovered == pytest.approx(1)


def test_the_runs_own_recipe_is_predicted_near_what_was_measured() -> None:
    found = predict(RECORD, UNITS, RECIPE.bits)
    assert found.bytes == HEADLINE.bytes.mixed
    assert found.recovered == pytest.approx(HEADLINE.recovered, abs=0.03)
    assert found.kl == pytest.approx(HEADLINE.kl.mixed, abs=0.03 * HEADLINE.kl.uniform)
    assert found.ppl == pytest.approx(HEADLINE.ppl.mixed, rel=0.01)


@given(st.lists(st.sampled_from([4, 8, 16]), min_size=32, max_size=32))
def test_the_page_predicts_what_the_command_does(widths: list[int]) -> None:
    bits = dict(zip(SCORES.uniform, widths, strict=True))
    ours, commands = predict(RECORD, UNITS, bits), SCORES.predict(bits)
    assert ours.bytes == commands.bytes
    assert ours.kl == pytest.approx(commands.kl, abs=1e-12 * SCORES.uniform_kl)
    assert ours.recovered == pytest.approx(commands.recovered, abs=1e-12)


def test_a_kept_unit_costs_nothing_until_it_is_quantized() -> None:
    record = keep("5.qkv")
    as_it_is = predict(record, UNITS, {"5.qkv": 16})
    assert as_it_is.bytes == record.measured.bytes.uniform
    assert as_it_is.recovered == 0
    narrower = predict(record, UNITS, {"5.qkv": 4})
    assert narrower.bytes == HEADLINE.bytes.uniform
    assert narrower.kl > as_it_is.kl
    assert predict(record, UNITS, {"5.qkv": 8}).kl < narrower.kl


def test_runs_without_rows_at_16_bits_offer_and_predict_what_they_know() -> None:
    older = {
        unit: {bits: row for bits, row in widths.items() if bits < 16}
        for unit, widths in UNITS.items()
    }
    assert widths_of(older) == [4, 8]
    assert predict(RECORD, older, RECIPE.bits) == predict(RECORD, UNITS, RECIPE.bits)
    found = predict(keep("0.o"), older, {"0.o": 8, "5.o": 8})
    assert found == predict(keep("0.o"), UNITS, {"0.o": 16, "5.o": 8})


def test_widths_are_those_that_every_unit_has() -> None:
    assert widths_of(UNITS) == WIDTHS
    assert widths_of({**UNITS, "0.o": {4: UNITS["0.o"][4]}}) == [4]


@given(changes)
def test_wider_units_never_cost_less_or_damage_more(bits: dict[str, int]) -> None:
    wider = {unit: 16 if width == 8 else width for unit, width in bits.items()}
    before, after = predict(RECORD, UNITS, bits), predict(RECORD, UNITS, wider)
    assert after.bytes >= before.bytes
    assert after.kl <= before.kl + 1e-12
    assert 0 <= before.kl <= HEADLINE.kl.uniform
    assert HEADLINE.ppl.reference - 1e-9 <= before.ppl <= HEADLINE.ppl.uniform + 1e-9


@given(changes)
def test_changes_come_back_from_the_address(bits: dict[str, int]) -> None:
    wanted = RECIPE.bits | bits
    text = write_changes(wanted, RECIPE.bits)
    read = read_changes(text, UNITS, WIDTHS)
    assert RECIPE.bits | read == wanted
    assert all(RECIPE.bits[unit] != width for unit, width in read.items())


@given(st.lists(st.tuples(st.sampled_from(["", *UNITS]), st.sampled_from(":,."), st.text())))
def test_any_text_gives_only_changes_that_can_be(parts: list[tuple[str, str, str]]) -> None:
    found = read_changes(",".join("".join(part) for part in parts), UNITS, WIDTHS)
    assert found.keys() <= UNITS.keys()
    assert set(found.values()) <= set(WIDTHS)


@pytest.mark.parametrize(
    "garbage",
    [
        "5.qkv",
        "5.qkv:",
        "5.qkv:3",
        "5.qkv:-8",
        "5.qkv:8:8",
        "5.qkv:²",
        "99.o:8",
        ":8",
        ",,",
        "8",
        "5.qkv:" + "9" * 5000,
    ],
)
def test_garbage_is_left_out(garbage: str) -> None:
    assert read_changes(garbage, UNITS, WIDTHS) == {}
    assert read_changes(f"{garbage},3.o:8", UNITS, WIDTHS) == {"3.o": 8}


@given(changes)
def test_recipes_made_by_hand_fit_the_model(bits: dict[str, int]) -> None:
    made = change_recipe(RECIPE, bits)
    check_fits(made, FAMILIES["llama"], RECORD.source.blocks)
    assert made.bits == RECIPE.bits | bits
    assert made.kind == "by hand"
    widths = made.linear_widths()
    for block in range(RECORD.source.blocks):
        layer = f"model.layers.{block}"
        assert len({widths[f"{layer}.self_attn.{name}_proj"] for name in "qkv"}) == 1
        assert len({widths[f"{layer}.mlp.{name}_proj"] for name in ("gate", "up")}) == 1


def test_a_recipe_that_splits_fused_linears_would_be_refused() -> None:
    first = RECIPE.units[0]
    split = replace(first, linears=first.linears[:1])
    broken = replace(RECIPE, units=(split, *RECIPE.units[1:]))
    with pytest.raises(InputError, match="does not hold the linears a server fuses"):
        check_fits(change_recipe(broken, {}), FAMILIES["llama"], RECORD.source.blocks)
