"""Packed linears of other tools against the integers that were packed, bit by bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import dequantize
from torch import Tensor, nn

from awqscope.mixedprec.checkpoints.packing import unpack_stream
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.layouts.table import LAYOUTS

ROWS, COLUMNS, GROUP = 64, 128, 32
LINEAR = nn.Linear(COLUMNS, ROWS, bias=False)
NAME = "model.layers.0.self_attn.q_proj"


def pack_bits(codes: np.ndarray, bits: int) -> Tensor:
    """Codes [R, C] down each column as one long integer, cut into words of 32 bits: GPTQ's own
    packing at every width, said another way."""
    words = -(-len(codes) * bits // 32)
    columns = []
    for column in codes.T.tolist():
        whole = sum(code << bits * place for place, code in enumerate(column))
        columns.append([whole >> 32 * word & 0xFFFFFFFF for word in range(words)])
    return torch.tensor(columns, dtype=torch.int64).to(torch.int32).T.contiguous()


def decode(method: str, config: dict[str, Any], parts: dict[str, Tensor]) -> Tensor:
    layout = LAYOUTS[method]
    said = layout.read(config, Path())
    found = {suffix: list(tensor.shape) for suffix, tensor in parts.items()}
    coding = layout.describe(said, NAME, LINEAR, found)
    assert found.items() <= coding.shapes.items()
    return layout.decode(parts, coding)


def make_gptq(
    bits: int, v2: bool, shuffled: bool, shape: tuple[int, int] = (COLUMNS, ROWS)
) -> tuple[dict[str, Tensor], Tensor]:
    """The tensors of a GPTQ linear of `shape` (inputs, outputs) from random integers, and the
    weight they stand for."""
    rng = np.random.default_rng(bits)
    columns, rows = shape
    groups = columns // GROUP
    codes = rng.integers(0, 2**bits, shape)
    zeros = rng.integers(0, 2**bits, (groups, rows))
    scales = rng.uniform(0.001, 0.1, (groups, rows)).astype(np.float16)
    index = np.repeat(np.arange(groups), GROUP)
    if shuffled:
        rng.shuffle(index)
    stored = zeros if v2 else (zeros - 1) % 2**bits
    if not v2 and bits != 3:
        # A word of zero points less a word of ones, as one number: a 0 borrows from the next.
        words = pack_bits(zeros.T, bits).long() - sum(1 << place for place in range(0, 32, bits))
        qzeros = words.to(torch.int32).T.contiguous()
    else:
        qzeros = pack_bits(stored.T, bits).T.contiguous()
    weight = (codes - zeros[index]).astype(np.float32) * scales[index].astype(np.float32)
    parts = {
        "qweight": pack_bits(codes, bits),
        "qzeros": qzeros,
        "scales": torch.from_numpy(scales),
        "g_idx": torch.from_numpy(index).int(),
    }
    return parts, torch.from_numpy(weight.T.copy())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("v2", [False, True])
def test_gptq_is_what_was_packed(bits: int, v2: bool) -> None:
    parts, weight = make_gptq(bits, v2, shuffled=True)
    config = {"checkpoint_format": "gptq_v2"} if v2 else {}
    assert torch.equal(decode("gptq", config, parts), weight)


def test_gptq_without_an_index_has_groups_in_a_row() -> None:
    parts, weight = make_gptq(4, False, shuffled=False)
    del parts["g_idx"]
    assert torch.equal(decode("gptq", {}, parts), weight)


def test_an_index_that_was_never_filled_in() -> None:
    parts, weight = make_gptq(4, False, shuffled=False)
    parts["g_idx"].fill_(-1)
    assert torch.equal(decode("gptq", {}, parts), weight)


def test_a_group_that_is_not_there() -> None:
    parts, _ = make_gptq(4, False, shuffled=True)
    parts["g_idx"][3] = COLUMNS // GROUP
    with pytest.raises(InputError, match="groups out of range"):
        decode("gptq", {}, parts)


@pytest.mark.parametrize("bits", range(2, 9))
def test_streams_of_any_length(bits: int) -> None:
    for rows in (1, 31, 40):
        codes = np.random.default_rng(rows).integers(0, 2**bits, (rows, 3))
        found = unpack_stream(pack_bits(codes, bits), bits, rows)
        assert found.tolist() == codes.tolist()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("packed_zeros", [False, True])
def test_compressed_tensors_is_what_its_library_says(
    bits: int, symmetric: bool, ordered: bool, packed_zeros: bool
) -> None:
    generator = torch.Generator().manual_seed(bits)
    groups, middle = COLUMNS // GROUP, 2 ** (bits - 1)

    def draw(*shape: int) -> Tensor:
        return torch.randint(-middle, middle, shape, generator=generator).to(torch.int8)

    codes = draw(ROWS, COLUMNS)
    zeros = torch.zeros(ROWS, groups, dtype=torch.int8) if symmetric else draw(ROWS, groups)
    scales = (0.01 + torch.rand(ROWS, groups, generator=generator)).to(torch.bfloat16)
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group"}
    weights |= {"group_size": GROUP}
    parts = {
        "weight_packed": pack_to_int32(codes, bits),
        "weight_scale": scales,
        "weight_shape": torch.tensor([ROWS, COLUMNS]),
    }
    if not symmetric:
        packed = pack_to_int32(zeros, bits, packed_dim=0).contiguous()
        parts["weight_zero_point"] = packed if packed_zeros else zeros
    index = None
    if ordered:
        index = torch.arange(COLUMNS).remainder(groups).int()
        parts["weight_g_idx"] = index
    config = {
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }
    expected = dequantize(
        codes.float(), scales.float(), zeros.float(), QuantizationArgs(**weights), g_idx=index
    )
    torch.testing.assert_close(decode("compressed-tensors", config, parts), expected)


def compressed(**changes: Any) -> dict[str, Any]:
    """A quantization_config with `changes` to its one group."""
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group"}
    group = {"targets": ["Linear"], "weights": weights | {"group_size": GROUP}, **changes}
    return {"format": "pack-quantized", "config_groups": {"group_0": group}}


OPAQUE = {"_data": "OPAQUE_TORCHAO_AUTO", "_type": "IntxPackingFormat"}


def torchao(kind: str, **data: Any) -> dict[str, Any]:
    """A quantization_config of one configuration of torchao for all linears."""
    return {"quant_type": {"default": {"_type": kind, "_data": data}}}


@pytest.mark.parametrize(
    ("method", "config", "wanted"),
    [
        ("awq", {"version": "gemv"}, "4-bit GEMM is read"),
        ("awq", {"bits": 3}, "4-bit GEMM is read"),
        ("gptq", {"checkpoint_format": "marlin"}, "gptq and gptq_v2 are read"),
        ("gptq", {"is_marlin_format": True}, "is marlin"),
        ("compressed-tensors", {}, "no config_groups"),
        ("compressed-tensors", compressed(format="int-quantized"), "pack-quantized is read"),
        ("compressed-tensors", compressed(input_activations={"num_bits": 8}), "activations"),
        ("compressed-tensors", compressed(weights={"num_bits": 8, "type": "float"}), "float of 8"),
        (
            "compressed-tensors",
            compressed(weights={"num_bits": 4, "strategy": "tensor"}),
            "group and channel are read",
        ),
        ("compressed-tensors", {**compressed(), "kv_cache_scheme": {"num_bits": 8}}, "kv_cache"),
        ("mlx", {"mode": "mxfp4", "bits": 4, "group_size": 32}, "MLX mode is mxfp4"),
        ("mlx", {"bits": 7, "group_size": 32}, "of 7 bits in groups of 32"),
        ("mlx", {"bits": 4, "group_size": 64, NAME: {"mode": "nvfp4"}}, "MLX mode is nvfp4"),
        ("hqq", {"quant_config": {"scale_quant_params": {"nbits": 8}}}, "are quantized too"),
        ("torchao", {"quant_type": "int4_weight_only"}, "quant_type is int4_weight_only"),
        ("torchao", torchao("Int4WeightOnlyConfig"), "by Int4WeightOnlyConfig"),
        ("torchao", torchao("Int8DynamicActivationInt8WeightConfig"), "Config and IntxWeightOnly"),
        ("torchao", torchao("IntxWeightOnlyConfig", intx_packing_format=OPAQUE), "OPAQUE"),
    ],
)
def test_variants_that_are_not_read(method: str, config: dict[str, Any], wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        LAYOUTS[method].read(config, Path())


def test_a_linear_goes_by_its_name_before_a_pattern_before_its_class() -> None:
    groups: dict[str, Any] = {}
    for bits, target in ((8, "Linear"), (3, "re:.*q_proj$"), (4, NAME)):
        weights = {"num_bits": bits, "symmetric": True, "strategy": "channel"}
        groups[f"group_{bits}"] = {"targets": [target], "weights": weights}

    def width(name: str) -> int:
        layout = LAYOUTS["compressed-tensors"]
        return layout.describe(layout.read(config, Path()), name, LINEAR, {}).bits

    config = {"config_groups": groups, "format": "pack-quantized"}
    assert width(NAME) == 4
    assert width("model.layers.1.self_attn.q_proj") == 3
    assert width("model.layers.1.mlp.up_proj") == 8
    del groups["group_8"]
    with pytest.raises(InputError, match="say nothing of"):
        width("model.layers.1.mlp.up_proj")
    groups["again"] = {"targets": [NAME], "weights": {"num_bits": 8, "strategy": "channel"}}
    with pytest.raises(InputError, match="say different things of"):
        width(NAME)


def test_a_linear_goes_by_torchaos_order() -> None:
    def plain(bits: int) -> dict[str, Any]:
        data = {"weight_dtype": {"_data": f"int{bits}"}}
        packing = {"intx_packing_format": {"_data": "UNPACKED_TO_INT8"}}
        return {"_type": "IntxWeightOnlyConfig", "_data": data | packing}

    def width(name: str) -> int:
        layout = LAYOUTS["torchao"]
        said = layout.read({"quant_type": {"default": chosen}}, Path())
        return layout.describe(said, name, LINEAR, {}).bits

    named = {"_default": plain(8), "re:.*proj": plain(3), "re:.*q_proj": plain(2), NAME: plain(4)}
    chosen = {"_type": "FqnToConfig", "_data": {"fqn_to_config": named}}
    assert width(NAME) == 4
    assert width("model.layers.1.self_attn.q_proj") == 3
    assert width("lm_head") == 8
    del named["_default"]
    with pytest.raises(InputError, match="says nothing of lm_head"):
        width("lm_head")


def test_words_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match="not an int32 matrix"):
        unpack_stream(torch.zeros(4, 4, dtype=torch.int64), 4, 32)
