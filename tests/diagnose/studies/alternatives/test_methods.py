"""Which alternatives there are beside a run, and why others are not."""

from typing import Any

import pytest

from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.studies.alternatives import rounding
from awqscope.diagnose.studies.alternatives.choosing import MIXES, choose_methods
from awqscope.diagnose.studies.alternatives.methods import METHODS, NAMES, Rounded, change_low
from awqscope.diagnose.studies.alternatives.rounding import ModelLinear
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import LLAMA_UNITS

COLUMNS = {"self_attn.q_proj": 128, "mlp.down_proj": 256}


def make_spec(**options: Any) -> RunSpec:
    return RunSpec(model="m", **{"group_size": 64, **options})


def choose(spec: RunSpec, *only: str, raises: bool = True, **columns: int) -> Any:
    found = {**COLUMNS, **columns}.items()
    linears = [ModelLinear("llama", 0, 1, LLAMA_UNITS[0], name, count) for name, count in found]
    return choose_methods(spec, linears, raises=raises, only=only)


def test_names_are_told_apart() -> None:
    assert len(set(NAMES)) == len(NAMES)


def test_every_mix_is_of_the_library_that_its_method_names() -> None:
    rounded = [method.source for method in METHODS if isinstance(method.source, Rounded)]
    assert {source.mix: source.library for source in rounded} == {
        name: mix.library for name, mix in MIXES.items()
    }
    assert len(rounded) == len(MIXES)


def test_all_that_can_be_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "find_spec", lambda name: object())
    found = choose(make_spec())
    assert {method.name for method in found.methods} == set(NAMES) - {"awq-g64"}
    assert found.left_out == {"awq-g64": "it is the same as uniform"}
    titles = [method.title(make_spec()) for method in found.methods]
    assert len(set(titles)) == len(titles)
    assert {"AWQ 4 bits in groups of 64", "AWQ symmetric 4 bits in groups of 64"} < set(titles)
    assert {"RTN 3 bits in groups of 64", "AWQ mixed by the recipe", "NF4"} < set(titles)


def test_what_a_run_has_already_is_not_made_again() -> None:
    left_out = choose(make_spec(bits=3, symmetric=True, group_size=-1), raises=False).left_out
    assert left_out["awq-3-bit"] == left_out["awq-symmetric"] == "it is the same as uniform"
    assert left_out["rtn-3-bit"] == "it is the same as rtn"
    assert left_out["mixed"] == "the run's recipe raises no unit"


def test_groups_that_do_not_divide_are_left_out() -> None:
    spec = make_spec(group_size=32)
    found = choose(spec, odd=96)
    for name in ("awq-g64", "awq-g128"):
        assert "does not divide the 96 inputs of odd" in found.left_out[name]
    with pytest.raises(InputError, match="does not divide the 96 inputs of odd"):
        choose(spec, "awq-g64", odd=96)


def test_some_alone_with_the_model_they_are_held_against() -> None:
    found = choose(make_spec(), "rtn")
    assert [method.name for method in found.methods] == ["uniform", "rtn"]
    assert found.left_out == {}


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "find_spec", lambda name: None)
    assert "needs bitsandbytes" in choose(make_spec()).left_out["nf4"]
    with pytest.raises(InputError, match=r"nf4 needs bitsandbytes.*awqscope\[alternatives\]"):
        choose(make_spec(), "nf4")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="no alternative gptq: choose from uniform, mixed"):
        choose(make_spec(), "rtn", "gptq")


def test_a_rescue_width_that_is_not_above_a_methods_refuses_nothing() -> None:
    spec = make_spec(bits=2, rescue_bits=3)
    found = choose(spec, "awq-3-bit", "rtn-3-bit", "rescue")
    schemes = {method.name: method.scheme(spec) for method in found.methods}
    assert [schemes[name].bits for name in ("awq-3-bit", "rtn-3-bit")] == [3, 3]
    assert str(change_low(spec, {"bits": 3}).low) == str(schemes["awq-3-bit"])
    # It is the low scheme alone that the bytes of such a model are counted by.
    changed = change_low(spec, {"bits": 3})
    assert changed.schemes_at([3])[3] == changed.low
    assert change_low(make_spec(), {"bits": 3}).rescue_bits == 8


def test_schemes_follow_the_run() -> None:
    spec = make_spec(symmetric=True)
    schemes = {method.name: method.scheme(spec) for method in METHODS}
    assert str(schemes["rtn"]) == str(spec.low)
    assert schemes["awq-g32"].group_size == 32 and schemes["awq-g32"].symmetric
    assert schemes["rtn-3-bit"].bits == 3
    assert schemes["nf4"] is None and schemes["mixed"] is None
