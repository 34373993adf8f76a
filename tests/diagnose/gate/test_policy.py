"""Policies: the default one, what is refused and with which words, and the schema for editors."""

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awqscope.diagnose.gate.criteria import SECTIONS
from awqscope.diagnose.gate.policy import (
    DEFAULT_PATH,
    SCHEMA_PATH,
    find_line,
    load_policy,
    parse_policy,
    policy_schema,
)
from awqscope.mixedprec.errors import InputError


def test_the_default_policy_documents_every_key() -> None:
    text = DEFAULT_PATH.read_text(encoding="utf-8")
    policy = load_policy()
    assert (policy.name, policy.subject, policy.drift_optional) == ("default policy", "mixed", True)
    given = tomllib.loads(text)
    for limit in policy.limits:
        written = given[limit.criterion.section][limit.criterion.key]
        assert limit.value == float(written)
    names = {limit.criterion.name for limit in policy.limits}
    assert names >= {"limits.max_kl", "limits.require_proof", "drift.max_top1_drop"}
    for criteria in SECTIONS.values():
        for criterion in criteria:
            assert f"{criterion.key} = " in text, f"{criterion.name} is not explained"


def test_a_policy_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('subject = "uniform"\n[limits]\nmax_kl = 1\n[drift]\nmax_kl_ratio = 0.9\n')
    policy = load_policy(path)
    assert (policy.name, policy.subject, policy.drift_optional) == (str(path), "uniform", False)
    assert policy.has_drift
    values = {limit.criterion.name: limit.value for limit in policy.limits}
    assert values == {"limits.max_kl": 1.0, "drift.max_kl_ratio": 0.9}


@pytest.mark.parametrize(
    ("text", "what", "remedy"),
    [
        ("", "p sets no limit", "set one"),
        ("[limits]", "p sets no limit", "set one"),
        ("[limits]\nrequire_proof = false", "p sets no limit", "set one"),
        ("\n[limits]\nmax_klp = 1", "p, line 3: unknown key 'max_klp'", "did you mean max_kl?"),
        ("[limits]\nzzz = 1", "line 2: unknown key 'zzz' in [limits]", "the keys are max_ppl_ra"),
        ("[limit]\nmax_kl = 1", "p, line 1: unknown key 'limit'", "did you mean limits?"),
        ("# x\nsubjekt = 'mixed'", "p, line 2: unknown key 'subjekt'", "did you mean subject?"),
        ("subject = 'mixt'\n[limits]\nmax_kl = 1", "line 1: subject is 'mixt'", "mixed or unif"),
        ("subject = [1]\n[limits]\nmax_kl = 1", "line 1: subject is [1]", "mixed or uniform"),
        ("limits = 3", "line 1: limits is 3", "make it a table, [limits]"),
        ("[[limits]]\nmax_kl = 1", "limits is [{", "make it a table"),
        ("[limits]\nmax_kl = '1'", "line 2: max_kl is '1'", "give a number"),
        ("[limits]\nmax_kl = true", "line 2: max_kl is True", "give a number"),
        ("limits.max_kl = nan", "line 1: max_kl is nan", "give a finite number"),
        ("[limits]\nmax_kl = inf", "max_kl is inf", "give a finite number"),
        ("[limits]\nmax_kl = -0.1", "max_kl is -0.1", "give at least 0"),
        ("[limits]\nmax_delta_ppl = -1", "max_delta_ppl is -1", "give at least 0"),
        ("[limits]\nmax_ppl_ratio = 0.99", "max_ppl_ratio is 0.99", "give at least 1"),
        ("[limits]\nmin_top1_agreement = 90", "min_top1_agreement is 90", "0.9 is 90%"),
        ("[limits]\nmin_top1_agreement = -1", "min_top1_agreement is -1", "at most 1"),
        ("[limits]\nmax_block_share = 1.5", "max_block_share is 1.5", "above 0 and at most 1"),
        ("[limits]\nmax_size_ratio = 0", "max_size_ratio is 0", "above 0"),
        ("[limits]\nrequire_proof = 1", "require_proof is 1", "give true or false"),
        ("[drift]\nmax_kl_ratio = 0", "line 2: max_kl_ratio is 0", "above 0"),
        ("[drift]\noptional = 1\nmax_kl_ratio = 1", "optional is 1", "true or false"),
        ("[drift]\noptional = true\nmax_kl_ratio = 1", "nothing would be judged", "take out opt"),
        ("subject='uniform'\n[limits]\nrequire_proof=true", "no proof of the uniform", "take out"),
        ("[limits\n", "p is no TOML", "line 1"),
        ("[limits]\nmax_kl = 1\nmax_kl = 2", "p is no TOML", "mend that line"),
    ],
)
def test_what_is_refused(text: str, what: str, remedy: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_policy(text, "p")
    assert what in str(raised.value)
    assert remedy in str(raised.value)


def test_policies_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no policy"):
        load_policy(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read"):
        load_policy(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(InputError, match="UTF-8"):
        load_policy(tmp_path / "latin.toml")


def test_integers_without_bound_are_limits_like_any() -> None:
    (limit,) = parse_policy(f"[limits]\nmax_kl = 1{400 * '0'}", "p").limits
    assert math.isfinite(limit.value)
    with pytest.raises(InputError, match="at most 1"):
        parse_policy(f"[limits]\nmax_block_share = 1{400 * '0'}", "p")


def test_lines_are_those_of_the_right_table() -> None:
    text = "[drift]\nmax_ppl_ratio = 1\n\n[limits] # here\n'max_ppl_ratio' = 1\n"
    assert find_line(text, "limits", "max_ppl_ratio") == 5
    assert find_line(text, "drift", "max_ppl_ratio") == 2
    assert find_line(text, "", "limits") == 4
    assert find_line("limits = {max_kl = 1}", "limits", "max_kl") is None


def test_the_committed_schema_is_the_codes() -> None:
    assert json.loads(SCHEMA_PATH.read_text(encoding="utf-8")) == policy_schema()


def accepts(schema: Any, value: Any) -> bool:
    """As much of a JSON Schema validator as the policy's schema needs."""
    if "enum" in schema:
        return value in schema["enum"]
    if schema["type"] == "boolean":
        return isinstance(value, bool)
    if schema["type"] == "number":
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and value >= schema.get("minimum", -math.inf)
            and value > schema.get("exclusiveMinimum", -math.inf)
            and value <= schema.get("maximum", math.inf)
        )
    known = schema["properties"]
    return isinstance(value, dict) and all(
        key in known and accepts(known[key], entry) for key, entry in value.items()
    )


KEYS = [(section, c.key) for section, criteria in SECTIONS.items() for c in criteria]


@given(
    place=st.sampled_from([*KEYS, ("limits", "max_klp"), ("drift", "optional")]),
    value=st.booleans() | st.floats(-2, 3) | st.integers(-2, 3) | st.just("1"),
)
def test_schema_and_code_accept_the_same(place: tuple[str, str], value: Any) -> None:
    section, key = place
    document: dict[str, Any] = {"limits": {"max_delta_ppl": 1}, "drift": {}}
    document[section] = {**document[section], key: value}
    text = "".join(
        f"[{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in entries.items())
        for name, entries in document.items()
    )
    try:
        parse_policy(text, "p")
        parsed = True
    except InputError:
        parsed = False
    assert accepts(policy_schema(), document) == parsed
