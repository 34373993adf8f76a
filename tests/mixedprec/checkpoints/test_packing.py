"""Words on disk: hand-made ones, round trips at every width, and what the other readers read."""

import pytest
import torch
from awq.modules.linear.gemm import WQLinear_GEMM
from awq.utils.packing_utils import dequantize_gemm
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from hypothesis import given, settings
from hypothesis import strategies as st

from awqscope.mixedprec.awq.arithmetic import quantize
from awqscope.mixedprec.checkpoints.packing import (
    from_compressed_tensors,
    from_gemm,
    pack,
    to_compressed_tensors,
    to_gemm,
    unpack,
    unpack_gemm,
)
from awqscope.mixedprec.scheme import Scheme


@settings(deadline=None)
@given(
    bits=st.integers(2, 8),
    rows=st.integers(1, 9),
    columns=st.integers(1, 70),
    seed=st.integers(0, 10_000),
)
def test_unpack_undoes_pack(bits: int, rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (rows, columns), generator=generator).to(torch.uint8)
    words = pack(codes, bits)
    assert words.dtype == torch.int32
    assert words.shape == (rows, -(-columns // (32 // bits)))
    assert torch.equal(unpack(words, bits, columns), codes)


def test_a_word_by_hand() -> None:
    codes = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 15]], dtype=torch.uint8)
    assert pack(codes, 4).item() == 0xF7654321 - 2**32
    assert pack(torch.tensor([[1, 0, 0, 255]], dtype=torch.uint8), 8).item() == 0xFF000001 - 2**32


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [64, -1])
def test_compressed_tensors_round_trip(bits: int, symmetric: bool, group: int) -> None:
    scheme = Scheme(bits, group, symmetric)
    coded = quantize(torch.randn(64, 128), scheme, torch.float16)
    tensors = to_compressed_tensors(coded)
    assert ("weight_zero_point" in tensors) is not symmetric
    back = from_compressed_tensors(tensors, scheme)
    assert torch.equal(back.dequantize(), coded.dequantize())


@pytest.mark.parametrize("bits", [4, 8])
def test_compressed_tensors_own_unpacking_agrees(bits: int) -> None:
    coded = quantize(torch.randn(64, 128), Scheme(bits, 64, False), torch.float16)
    tensors = to_compressed_tensors(coded)
    theirs = unpack_from_int32(tensors["weight_packed"], bits, torch.Size([64, 128]))
    assert torch.equal(theirs.int() + 2 ** (bits - 1), coded.codes.int())
    zeros = unpack_from_int32(tensors["weight_zero_point"], bits, torch.Size([64, 2]), packed_dim=0)
    assert torch.equal(zeros.int() + 2 ** (bits - 1), coded.zeros.int())


def test_gemm_is_what_autoawq_reads_and_packs() -> None:
    scheme = Scheme(4, 64, False)
    coded = quantize(torch.randn(64, 128), scheme, torch.float16)
    tensors = to_gemm(coded)
    read = dequantize_gemm(tensors["qweight"], tensors["qzeros"], tensors["scales"], 4, 64)
    exact = coded.dequantize()
    assert torch.allclose(read.T.float(), exact, rtol=1e-3, atol=1e-6)
    linear = torch.nn.Linear(128, 64, bias=False)
    linear.weight.data = exact
    packed = WQLinear_GEMM.from_linear(
        linear, 4, 64, scales=coded.scales.T.float(), zeros=coded.zeros.T.float()
    )
    assert torch.equal(packed.qweight, tensors["qweight"])
    assert torch.equal(packed.qzeros, tensors["qzeros"])
    assert torch.equal(from_gemm(tensors, scheme).dequantize(), exact)


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0)])
def test_words_that_hold_nothing_are_no_weight(shape: tuple[int, int]) -> None:
    words = torch.zeros(shape, dtype=torch.int32)
    for read in (lambda: unpack(words, 4, 0), lambda: unpack_gemm(words)):
        with pytest.raises(ValueError, match="not an int32 matrix"):
            read()
