"""Rounding: autoawq's, bit for bit, and bounded in its error at every width."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from awqscope.mixedprec.awq.arithmetic import fake_quantize, quantize
from awqscope.mixedprec.awq.autoawq import AwqQuantizer
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.scheme import BITS, Scheme

SCHEMES = st.builds(
    Scheme, st.sampled_from(list(BITS)), st.sampled_from([32, 64, 128, -1]), st.booleans()
)


def random_weight(seed: int, rows: int = 24, columns: int = 256) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    return weight * torch.exp(torch.randn(rows, 1, generator=generator))


@settings(deadline=None, max_examples=60)
@given(scheme=SCHEMES, seed=st.integers(0, 10_000))
def test_fake_quantize_is_autoawqs(scheme: Scheme, seed: int) -> None:
    stock = AwqQuantizer.__new__(AwqQuantizer)
    stock.w_bit, stock.zero_point = scheme.bits, not scheme.symmetric
    stock.group_size = scheme.group_size
    weight = random_weight(seed)
    expected = stock.pseudo_quantize_tensor(weight.clone())[0]
    assert torch.equal(fake_quantize(weight, scheme), expected)


@settings(deadline=None, max_examples=60)
@given(scheme=SCHEMES, seed=st.integers(0, 10_000))
def test_error_is_at_most_half_a_step_and_codes_fit(scheme: Scheme, seed: int) -> None:
    weight = random_weight(seed)
    coded = quantize(weight, scheme, torch.float16)
    assert int(coded.codes.max()) < 2**scheme.bits
    groups = coded.scales.shape[1]
    steps = coded.scales.float().repeat_interleave(weight.shape[1] // groups, dim=1)
    # Half a step, and what float16 takes off a scale times the largest code.
    slack = 0.5 + 2**scheme.bits * 2.0**-11 + 0.5 * (not scheme.symmetric)
    assert ((coded.dequantize() - weight).abs() <= steps * slack).all()


def test_quantize_rounds_scales_before_codes() -> None:
    weight = torch.tensor([[0.0, 0.1, 0.7, 1.0] * 8])
    coded = quantize(weight, Scheme(4, 32, False), torch.bfloat16)
    scale = (torch.tensor(1.0) / 15).to(torch.bfloat16)
    assert coded.scales.item() == scale.item()
    assert coded.codes[0, :4].tolist() == torch.round(weight[0, :4] / scale.float()).tolist()


@pytest.mark.parametrize(("bits", "group"), [(1, 128), (9, 128), (4, 100), (4, 0)])
def test_impossible_schemes_are_refused(bits: int, group: int) -> None:
    with pytest.raises(InputError, match="choose"):
        Scheme(bits, group, False)


def test_groups_must_tile_the_inputs() -> None:
    Scheme(4, 128, False).check_divides(256, "linear")
    with pytest.raises(InputError, match="does not divide the 192 inputs of linear"):
        Scheme(4, 128, False).check_divides(192, "linear")
