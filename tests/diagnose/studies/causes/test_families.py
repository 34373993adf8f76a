"""Architectures that differ: fused projections, experts, keys that are compressed, parallel
branches. What cannot be asked of one is said and not guessed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from awqscope.app.words.studies.why import write_findings, write_lacking
from awqscope.diagnose.studies.causes.find import find_causes
from tests.help.planted import write_studied_run

# Family -> roles that its linears are told by head for, by linear; and what is lacking.
EXPECTED = {
    "phi3": ({"self_attn.qkv_proj": "qkv", "self_attn.o_proj": "o"}, []),
    "gpt_neox": ({"attention.query_key_value": "qkv", "attention.dense": "o"}, []),
    "minicpm3": ({}, ["heads"]),
    "qwen3_moe": (
        {
            "self_attn.q_proj": "q",
            "self_attn.k_proj": "k",
            "self_attn.v_proj": "v",
            "self_attn.o_proj": "o",
        },
        ["experts"],
    ),
}


@pytest.mark.parametrize("family", EXPECTED)
def test_families_are_asked_as_far_as_they_carry(
    family: str, make_model: Callable[..., Path], text_file: Path, tmp_path: Path
) -> None:
    roles, lacking = EXPECTED[family]
    opened = write_studied_run(
        tmp_path / "run",
        make_model(family),
        text_file,
        text_file,
        windows=4,
        calib_windows=4,
        bits=3,
        rescue_bits=8,
    )
    causes = find_causes(opened, 1)
    found = {
        linear.linear: "".join(dict.fromkeys(head.role for head in linear.heads))
        for linear in causes.linears
        if linear.heads
    }
    assert found == roles and list(causes.lacking) == lacking
    assert len(write_lacking(causes)) == len(lacking) and write_findings(causes)
    expert = [linear for linear in causes.linears if linear.split is None]
    assert [linear.linear for linear in expert] == ["mlp"] * ("experts" in lacking)
    assert all(linear.kl[0] > 0 for linear in causes.linears)
    assert causes.growth[-1].kind == "output" and causes.growth[-1].error[0] > 0
    assert bool(causes.attention) == (causes.heads is not None)
    for linear in causes.linears:
        assert 0 <= linear.arrived < 3
        assert not linear.heads or sum(head.error for head in linear.heads) == pytest.approx(
            1, rel=1e-4
        )
