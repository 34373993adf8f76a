"""The error of weights, against numpy on weights made by hand."""

import numpy as np
import pytest
import torch

from awqscope.diagnose.inside.weights import WeightLog, measure_error
from awqscope.mixedprec.awq.arithmetic import fake_quantize
from awqscope.mixedprec.scheme import Scheme

GROUP = 32


def make_pair(rows: int = 48, columns: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and the same with an even error of 1%."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator)
    return weight, weight + 0.01 * torch.randn(rows, columns, generator=generator)


def part(weight: torch.Tensor, row: int, group: int) -> torch.Tensor:
    return weight[row, group * GROUP : (group + 1) * GROUP]


def test_agrees_with_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "awqscope.mixedprec.awq.losses.ELEMENTS_A_CHUNK", 1000
    )  # seven rows at a time
    weight, _ = make_pair()
    effective = fake_quantize(weight, Scheme(4, GROUP, False))
    found = measure_error(weight, effective, GROUP)
    whole, delta = weight.double().numpy(), (effective - weight).double().numpy()
    error = np.linalg.norm(delta) / np.linalg.norm(whole)
    assert found["relative_error"].item() == pytest.approx(error, rel=1e-5)
    damage = {}
    norms = [np.linalg.norm(run) for row in whole for run in row.reshape(-1, GROUP)]
    typical = np.sqrt(np.mean(np.square(norms)))
    for row in range(48):
        for group in range(128 // GROUP):
            columns = slice(group * GROUP, (group + 1) * GROUP)
            size = max(np.linalg.norm(whole[row, columns]), typical)
            damage[row, group] = np.linalg.norm(delta[row, columns]) / size
    expected = sorted(damage, key=lambda place: -damage[place])[:8]
    places = zip(found["worst_rows"].tolist(), found["worst_groups"].tolist(), strict=True)
    assert list(places) == expected
    errors = [damage[place] for place in expected]
    assert found["worst_errors"].tolist() == pytest.approx(errors, rel=1e-5)


def test_names_the_damaged_groups_and_no_others() -> None:
    weight, effective = make_pair()
    # Wholly lost, but next to nothing: relative error alone would put it first.
    part(weight, 3, 2)[:] *= 1e-4
    part(effective, 3, 2)[:] = 0
    # Large, with the largest absolute error: its share alone would put it first.
    part(weight, 9, 0)[:] *= 50
    part(effective, 9, 0)[:] = part(weight, 9, 0) * 1.02
    part(effective, 7, 1)[:] = 0
    part(effective, 40, 3)[:] *= 0.5
    found = measure_error(weight, effective, GROUP)
    assert found["worst_rows"].tolist()[:2] == [7, 40]
    assert found["worst_groups"].tolist()[:2] == [1, 3]
    assert (3, 2) not in zip(
        found["worst_rows"].tolist(), found["worst_groups"].tolist(), strict=True
    )


def test_whole_rows_few_groups_and_pruned_linears() -> None:
    weight, effective = make_pair(rows=3)
    effective[1] *= 1.5
    log = WeightLog(Scheme(4, -1, True).group)
    log.observe(5, "mlp.down_proj", weight, effective)
    log.observe(6, "mlp.down_proj", torch.zeros(4, 128), torch.zeros(4, 128))
    state = log.state()
    assert state["5.mlp.down_proj.worst_rows"].tolist()[0] == 1
    assert state["5.mlp.down_proj.worst_groups"].tolist() == [0, 0, 0]
    assert state["6.mlp.down_proj.relative_error"] == 0
    assert state["6.mlp.down_proj.worst_errors"].tolist() == [0.0] * 4
