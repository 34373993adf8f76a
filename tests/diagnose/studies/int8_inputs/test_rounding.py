"""Rounded linears against integer products, the paper's formulas, and what bitsandbytes
computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from awqscope.diagnose.studies.int8_inputs import rounding
from awqscope.diagnose.studies.int8_inputs.answer import INT8, LLM_INT8, SMOOTHQUANT, THRESHOLD
from awqscope.diagnose.studies.int8_inputs.rounding import round_linear
from awqscope.diagnose.studies.int8_inputs.smoothing import smoothing_scales

MADE = Path(__file__).parent / "bitsandbytes-linear8bitlt.safetensors"


@pytest.fixture
def linear() -> tuple[Tensor, Tensor]:
    """Inputs of two windows [2, 24, 64] with an outlier channel in the second alone, and a weight
    [48, 64] whose outputs are of uneven size."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(2, 24, 64, generator=generator)
    inputs[1, :, 9] *= 40
    inputs[0, 3] = 0
    weight = torch.randn(48, 64, generator=generator) * torch.logspace(-3, 1, 48)[:, None]
    return inputs.clamp(-200, 200), weight


def to_codes(values: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes of each row, and its scale."""
    scales = values.abs().amax(-1, keepdim=True) / 127
    return torch.nan_to_num(values / scales).round().to(torch.int8), scales


def test_int8_is_the_integer_product_of_the_codes(linear: tuple[Tensor, Tensor]) -> None:
    inputs, weight = linear
    rounded = round_linear(weight, INT8)
    (left, tokens), (right, outputs) = to_codes(inputs.flatten(0, 1)), to_codes(weight)
    products = left.long() @ right.long().T
    assert torch.equal(torch._int_mm(left, right.T.contiguous()).long(), products)
    expected = (products * tokens * outputs.T).view(2, 24, 48)
    found = rounded.transform(inputs) @ rounded.weight.T
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert left.abs().max() == right.abs().max() == 127


def split_product(inputs: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """LLM.int8 of one window in float64: outlier channels as they are, the others as integers. Each
    token's scale is that of its values below the threshold; weights are all at int8."""
    outliers = (np.abs(inputs) >= THRESHOLD).any(0)
    tokens = np.abs(np.where(np.abs(inputs) >= THRESHOLD, 0, inputs)).max(1, keepdims=True) / 127
    outputs = np.abs(weight).max(1, keepdims=True) / 127
    codes = np.rint(weight / outputs)
    whole = np.rint(np.divide(inputs, tokens, where=tokens > 0, out=np.zeros_like(inputs)))
    ordinary = whole[:, ~outliers] @ codes[:, ~outliers].T * tokens * outputs.T
    return ordinary + inputs[:, outliers] @ (codes * outputs)[:, outliers].T


def test_llm_int8_keeps_the_outlier_channels_of_each_window(linear: tuple[Tensor, Tensor]) -> None:
    inputs, weight = linear
    rounded = round_linear(weight, LLM_INT8)
    found = rounded.transform(inputs) @ rounded.weight.T
    for window in (0, 1):
        expected = split_product(inputs[window].double().numpy(), weight.double().numpy())
        np.testing.assert_allclose(found[window].double(), expected, rtol=1e-4, atol=1e-4)
    exact, plain = inputs @ weight.T, round_linear(weight, INT8)
    worse = plain.transform(inputs) @ plain.weight.T
    # Only where there is an outlier it differs from rounding by token.
    assert torch.equal(found[0], worse[0])
    assert (found[1] - exact[1]).norm() < 0.5 * (worse[1] - exact[1]).norm()


def test_llm_int8_is_what_bitsandbytes_computes() -> None:
    """Made by Linear8bitLt of bitsandbytes 0.50.2 on the CPU, in float32, with a threshold of 6."""
    made = load_file(MADE)
    rounded = round_linear(made["weight"].float(), LLM_INT8)
    found = rounded.transform(made["inputs"].float()) @ rounded.weight.T
    assert (made["inputs"].abs() >= THRESHOLD).any()
    # It multiplies with 6.200124e-5 where 1/127² is 6.200012e-5.
    torch.testing.assert_close(found, made["outputs"].float(), rtol=1e-3, atol=0.01)
    plain = round_linear(made["weight"].float(), INT8)
    differs = plain.transform(made["inputs"].float()) @ plain.weight.T - made["outputs"].float()
    assert differs.abs().max() > 0.5


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_smoothing_alone_changes_nothing(
    alpha: float, linear: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without rounding the output is the reference's; with it a scaled product of integers."""
    inputs, weight = linear
    largest = inputs.flatten(0, 1).abs().amax(0)
    scales = smoothing_scales(largest, weight.abs().amax(0), alpha)
    rounded = round_linear(weight, SMOOTHQUANT, scales)
    (left, tokens), (right, outputs) = to_codes(inputs / scales), to_codes(weight * scales)
    expected = (left.double() @ right.double().T) * tokens * outputs.T
    found = rounded.transform(inputs) @ rounded.weight.T
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)
    monkeypatch.setattr(rounding, "fake_quantize", lambda values, scheme: values.clone())
    monkeypatch.setattr(rounding, "round_tokens", lambda values: values.clone())
    same = round_linear(weight, SMOOTHQUANT, scales)
    torch.testing.assert_close(
        same.transform(inputs) @ same.weight.T, inputs @ weight.T, rtol=1e-4, atol=1e-4
    )


def test_alpha_moves_the_whole_spread_to_one_side(linear: tuple[Tensor, Tensor]) -> None:
    """The paper's two ends: at 1 every input channel reaches 1, at 0 every weight column does."""
    inputs, weight = linear
    largest, columns = inputs.flatten(0, 1).abs().amax(0), weight.abs().amax(0)
    scales = smoothing_scales(largest, columns, 1.0)
    torch.testing.assert_close((inputs / scales).flatten(0, 1).abs().amax(0), torch.ones(64))
    scales = smoothing_scales(largest, columns, 0.0)
    torch.testing.assert_close((weight * scales).abs().amax(0), torch.ones(64))
    half = smoothing_scales(largest, columns, 0.5)
    torch.testing.assert_close(half, (largest / columns).sqrt())
