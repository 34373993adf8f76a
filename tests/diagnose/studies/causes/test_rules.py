"""What is suspected, and what of it is a cause: on numbers made by hand."""

from typing import Any

import numpy as np
import pytest
import torch

from awqscope.app.words.studies.why import say
from awqscope.diagnose.studies.causes.answer import HeadCauses, LinearCauses
from awqscope.diagnose.studies.causes.errors import Columns
from awqscope.diagnose.studies.causes.rules import (
    MOST_SUSPECTS,
    Evidence,
    Look,
    Suspect,
    find_causes_of,
    find_suspects,
)
from awqscope.diagnose.studies.causes.switches import ROUNDED, SCALED, SERVED
from tests.help.caused import make_causes, make_head, make_linear

CHANNELS, GROUP = 256, 64


def columns(**changes: Any) -> Columns:
    even = torch.ones(CHANNELS)
    values: dict[str, Any] = {
        "activation": even,
        "largest": even,
        "where": even.long(),
        "calibrated": even,
        "weight": even,
        "strength": even,
        "scale": None,
        "clipped": even,
        "error": even / CHANNELS,
        "group": GROUP,
    }
    return Columns(**{**values, **changes})


def heads(role: str, arrived: list[float], condition: list[float]) -> list[HeadCauses]:
    return [
        HeadCauses.model_validate(
            {**make_head(role, head, [head]), "arrived": one, "condition": other}
        )
        for head, (one, other) in enumerate(zip(arrived, condition, strict=True))
    ]


def look(linear: str = "o", arrived: float = 0.6, **changes: Any) -> Look:
    return Look(linear, arrived, **{"heads": [], "columns": columns(), **changes})


def test_nothing_even_is_suspected() -> None:
    even = heads("v", [0.2, 0.2, 0.2], [9.0, 9.0, 9.0])
    assert find_suspects([look(heads=even)], {"v": 9.0}, 32) == []


def test_ill_conditioned_heads_are_suspected_together_and_not_twice() -> None:
    odd = heads("v", [0.01, 0.3, 0.3, 0.01], [9.0, 200.0, 100.0, 9.0])
    [suspect] = find_suspects([look(heads=odd)], {"v": 9.0}, 32)
    assert (suspect.cause, list(suspect.heads)) == ("conditioning", [1, 2])
    assert suspect.numbers == {"condition": 150.0, "usual": 9.0, "size": 32.0}
    assert find_suspects([look(heads=odd, arrived=0.1)], {"v": 9.0}, 32) == []
    # In a model of one block nothing is known to be usual.
    causes = [suspect.cause for suspect in find_suspects([look(heads=odd)], {}, 32)]
    assert "conditioning" not in causes


def test_a_head_that_errs_far_more_than_others_is_suspected() -> None:
    odd = heads("q", [0.02, 0.5, 0.03, 0.04], [9.0] * 4)
    [suspect] = find_suspects([look(heads=odd)], {"q": 9.0}, 32)
    assert (suspect.cause, list(suspect.heads)) == ("head", [1])
    assert suspect.numbers["times"] == pytest.approx(0.5 / 0.03)


def test_a_channel_with_most_of_the_error_is_suspected() -> None:
    error, largest = torch.full((CHANNELS,), 0.5 / CHANNELS), torch.ones(CHANNELS)
    error[70], largest[70] = 0.5, 80.0
    [suspect] = find_suspects([look(columns=columns(error=error, largest=largest))], {}, 32)
    assert (suspect.cause, list(suspect.channels)) == ("channel", [70])
    assert suspect.numbers["times"] == pytest.approx(80)


def test_a_group_that_a_column_stretches_is_suspected() -> None:
    error, strength = torch.full((CHANNELS,), 0.05 / 192), torch.ones(CHANNELS)
    error[64:128] = 0.95 / 64
    strength[100] = 30.0
    [suspect] = find_suspects([look(columns=columns(error=error, strength=strength))], {}, 32)
    assert suspect.cause == "stretched" and suspect.channels[0] == 100
    assert sorted(suspect.channels) == list(range(64, 128))


def test_the_likeliest_suspects_are_measured() -> None:
    odd = heads("q", [0.2, 0.3, 0.4, 0.5, 0.001, 0.001, 0.001, 0.001, 0.001], [9.0] * 9)
    found = find_suspects([look(heads=odd)], {"q": 9.0}, 32)
    assert [suspect.heads[0] for suspect in found] == [3, 2, 1] and len(found) == MOST_SUSPECTS


def test_a_suspect_puts_only_its_own_weights() -> None:
    suspect = Suspect(cause="channel", linear="o", channels=[3, 5], weight=1.0)
    mixed = suspect.put(torch.zeros(4, 8), torch.ones(4, 8), None)
    assert mixed.sum() == 8 and torch.equal(mixed[:, [3, 5]], torch.ones(4, 2))


def evidence(rounded: float, scaled: float, served: float, **changes: Any) -> Evidence:
    """Of a block whose windows are nearly alike."""
    near = 1 + 0.01 * np.arange(4)
    damage = {ROUNDED: rounded * near, SCALED: scaled * near, SERVED: served * near}
    values: dict[str, Any] = {
        "damage": damage,
        "linears": make_causes().linears,
        "suspects": [],
        "owners": [0, 0, 0, 0],
        "names": ["valid.txt"],
        "floor": None,
        "seed": 0,
    }
    return Evidence(**{**values, **changes})


@pytest.mark.parametrize(
    ("damage", "steps"),
    [
        ((1.0, 0.8, 0.7), []),
        ((1.0, 0.8, 0.9), []),
        ((1.0, 0.7, 1.0), ["clip"]),
        ((0.5, 1.0, 0.9), ["scale"]),
        ((0.1, 0.6, 1.0), ["scale", "clip"]),
        ((-1.0, -1.0, -1.0), []),
    ],
)
def test_a_step_that_raises_the_damage_is_a_cause(
    damage: tuple[float, float, float], steps: list[str]
) -> None:
    assert [finding.step for finding in find_causes_of(evidence(*damage))] == steps


def test_damage_below_the_noise_floor_has_no_causes() -> None:
    assert find_causes_of(evidence(1.0, 0.7, 1.0, floor=2.0)) == []


def test_a_suspect_is_a_cause_if_it_costs_enough() -> None:
    suspect = Suspect(cause="head", linear="self_attn.v_proj", role="v", heads=[1], weight=1.0)
    near = 1 + 0.01 * np.arange(4)
    for cost, is_cause in ((0.3, True), (0.15, False)):
        found = find_causes_of(evidence(1.0, 1.0, 1.0, suspects=[(suspect, cost * near)]))
        assert [finding.cause for finding in found] == ["head"] * is_cause
    unsure = np.array([0.0, 0.0, 0.0, 1.2])
    assert find_causes_of(evidence(1.0, 1.0, 1.0, suspects=[(suspect, unsure)])) == []


def test_a_text_that_a_step_hurts_alone_is_named() -> None:
    """The scales help on the first text and hurt on the second."""
    damage = {
        ROUNDED: np.array([1.0, 1.0, 0.2, 0.2]),
        SCALED: np.array([0.5, 0.5, 0.5, 0.5]),
        SERVED: np.array([0.5, 0.5, 0.5, 0.5]),
    }
    helped, hurt = {"scale": [-0.01] * 3}, {"scale": [0.02] * 3}
    linears = [
        linear.changed(
            by_text=[linear.split.changed(**helped), linear.split.changed(**hurt)],
        )
        for linear in make_causes().linears
        if linear.split is not None
    ]
    found = find_causes_of(
        evidence(
            1.0,
            1.0,
            1.0,
            damage=damage,
            linears=linears,
            owners=[0, 0, 1, 1],
            names=["a.txt", "b.txt"],
        )
    )
    assert [(f.cause, f.text, f.step) for f in found] == [("calibration", "b.txt", "scale")]


def test_a_step_that_hurts_experts_alone_is_named_without_a_linear() -> None:
    """Experts are looked at as one: there is no error of single outputs to blame."""
    experts = make_linear("mlp.experts", "experts", 1.0, split=None, calibrated=None, channels=[])
    linears = [LinearCauses.model_validate(experts)]
    [found] = find_causes_of(evidence(1.0, 0.7, 1.0, linears=linears))
    assert (found.cause, found.step, found.linear) == ("clip", "clip", None)
    assert "Clipping causes" in say(found, make_causes())
