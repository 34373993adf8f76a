"""Statistics against the same taken at once, by numpy and scipy."""

import numpy as np
import pytest
import scipy.stats
import torch

from awqscope.diagnose.inside.activations import ActivationLog
from awqscope.diagnose.runs.tables import QUANTILES


@pytest.fixture
def logs() -> tuple[ActivationLog, torch.Tensor, torch.Tensor]:
    """A log fed in three batches, and all it was fed: heavy tails, one outlier channel."""
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(6, 40, 32, generator=generator) ** 3
    reference[..., 7] *= 50
    uniform = reference + 0.01 * torch.randn(6, 40, 32, generator=generator)
    log = ActivationLog()
    for batch in range(0, 6, 2):
        log.observe(2, "down", reference[batch : batch + 2], uniform[batch : batch + 2])
    return log, reference, uniform


def test_rows_agree_with_numpy(logs: tuple[ActivationLog, torch.Tensor, torch.Tensor]) -> None:
    log, reference, uniform = logs
    first, second = log.rows()
    for row, values in ((first, reference), (second, uniform)):
        flat = values.double().flatten().numpy()
        assert row["abs_max"] == pytest.approx(np.abs(flat).max())
        assert row["rms"] == pytest.approx(np.sqrt((flat**2).mean()), rel=1e-4)
        assert row["kurtosis"] == pytest.approx(scipy.stats.kurtosis(flat, fisher=False), rel=1e-3)
        for quantile in QUANTILES:
            exact = np.quantile(flat, quantile)
            assert row[f"q{quantile:g}"] == pytest.approx(exact, rel=0.1, abs=1e-3)
        channels = values.abs().amax((0, 1))
        assert row["outlier_channels"][0] == 7
        assert row["outlier_values"][0] == pytest.approx(channels[7].item())
        assert row["channel_median"] == pytest.approx(channels.median().item())
    error = ((reference - uniform).double() ** 2).sum() / (reference.double() ** 2).sum()
    assert first["relative_mse"] == pytest.approx(error.item(), rel=1e-4)
    assert first["sqnr"] == pytest.approx(-10 * np.log10(error.item()), rel=1e-4)
    cosine = torch.cosine_similarity(
        reference.flatten().double(), uniform.flatten().double(), dim=0
    )
    assert first["cosine"] == pytest.approx(cosine.item(), rel=1e-6)


def test_histogram_counts_every_value(
    logs: tuple[ActivationLog, torch.Tensor, torch.Tensor],
) -> None:
    log, reference, _ = logs
    arrays = log.arrays()
    counts, edges = arrays["histogram.2.down.reference"], arrays["histogram_edges"]
    assert counts.sum() == reference.numel()
    assert len(edges) == len(counts) + 1
    expected, _ = np.histogram(reference.numpy(), bins=edges.numpy())
    # A value within rounding of an edge may fall on either side.
    assert np.abs(expected - counts.numpy()).sum() <= 4


def test_merging_states_is_feeding_one_log(
    logs: tuple[ActivationLog, torch.Tensor, torch.Tensor],
) -> None:
    whole, reference, uniform = logs
    merged = ActivationLog()
    for half in (slice(0, 2), slice(2, 6)):
        part = ActivationLog()
        part.observe(2, "down", reference[half], uniform[half])
        merged.merge(part.state())
    for a, b in zip(whole.rows(), merged.rows(), strict=True):
        assert a["outlier_channels"] == b["outlier_channels"]
        for name in ("abs_max", "rms", "kurtosis", "q0.99", "sqnr", "cosine"):
            assert a[name] == pytest.approx(b[name], rel=1e-6)
