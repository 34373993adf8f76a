"""Scores over a text of which the views were measured on some windows."""

import numpy as np
import pytest
import torch
from torch import Tensor

from awqscope.diagnose.sweep.surveys import Surveys, TextScores, where_measured

WINDOWS = 12


def scores(windows: list[int], names: tuple[str, ...]) -> dict[str, Tensor]:
    """Every score of these models by window, told from the window's number."""
    at = torch.tensor(windows, dtype=torch.float64)
    found = {}
    for number, name in enumerate(names):
        found[f"kl.{name}"] = (at + 1) * 0.01 * (number + 1)
        found[f"nll.{name}"] = 3 + at * 0.1 + number * 0.05
        found[f"agree.{name}"] = 1 - (at + 1) * 0.01 * number
    return found


def put_together() -> dict[str, Tensor]:
    text = TextScores(WINDOWS)
    text.put(scores([1, 4, 6], ("reference", "uniform", "isolated.0", "isolated.1")), [1, 4, 6])
    rest = [n for n in range(WINDOWS) if n not in (1, 4, 6)]
    text.put(scores(rest, ("reference", "uniform")), rest)
    more = {k: v for k, v in scores([0, 9], ("x", "y", "isolated.0")).items() if "." in k}
    text.put({k: v for k, v in more.items() if k.endswith("isolated.0")}, [0, 9])
    return text.arrays()


def test_parts_of_a_text_are_put_where_they_belong() -> None:
    found = put_together()
    whole = scores(list(range(WINDOWS)), ("reference", "uniform"))
    assert all(torch.equal(found[name], values) for name, values in whole.items())
    assert "measured.uniform" not in found
    assert np.flatnonzero(where_measured(found, "isolated.1")).tolist() == [1, 4, 6]
    assert np.flatnonzero(where_measured(found, "isolated.0")).tolist() == [0, 1, 4, 6, 9]
    assert where_measured(found, "uniform").all()
    assert found["kl.isolated.0"][[2, 3]].tolist() == [0, 0]


def test_the_worst_windows_keep_their_numbers() -> None:
    text = TextScores(WINDOWS)
    text.put({"worst": torch.tensor([2, 0]), "worst.isolated": torch.ones(2, 5, 3)}, [1, 4, 6])
    assert text.arrays()["worst"].tolist() == [6, 1]
    assert text.arrays()["worst.isolated"].shape == (2, 5, 3)


def test_damage_is_that_of_the_whole_text() -> None:
    """Here every score is a line in the window's number, so that the control tells all of it."""
    surveys = Surveys(put_together(), seed=0)
    found = surveys.damage("isolated.0")
    number = 2  # of isolated.0 in the first sweep; three in the second, which made it from "y"
    at = np.arange(WINDOWS)
    assert surveys.of("isolated.0").count == 5
    assert surveys.of("isolated.1").count == 3
    alone = surveys.damage("isolated.1")
    assert alone["kl"] == pytest.approx(((at + 1) * 0.01 * 4).mean())
    assert alone["delta_nll"] == pytest.approx(0.15)
    assert alone["top1_agreement"] == pytest.approx((1 - (at + 1) * 0.03).mean())
    assert found["kl"] == pytest.approx(((at + 1) * 0.01 * (number + 1)).mean())
    assert surveys.kl("isolated.1") == pytest.approx(alone["kl"])
    assert alone["kl_low"] <= alone["kl"] <= alone["kl_high"]
