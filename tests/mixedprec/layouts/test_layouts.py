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

from awqscope.mixedprec.checkpoints.packing import unpack_planes, unpack_stream
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.foreign.method import LAYOUTS

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


def pack_planes(codes: np.ndarray, bits: int) -> Tensor:
    """Codes [R, C] as GPTQModel's planes: each 32 codes of a column cut into runs of bits, and
    each run packed as if it were a code of its own."""
    runs = [width for width in (8, 4, 2, 1) if bits & width]
    blocks = []
    for start in range(0, len(codes), 32):
        block, low = codes[start : start + 32], 0
        for width in runs:
            blocks.append(pack_bits(block >> low & (2**width - 1), width))
            low += width
    return torch.cat(blocks)


@pytest.mark.parametrize("bits", range(2, 9))
def test_planes_are_what_was_packed(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, (96, 5))
    assert unpack_planes(pack_planes(codes, bits), bits, 96).tolist() == codes.tolist()


def test_planes_that_are_cut_off() -> None:
    with pytest.raises(ValueError, match="do not hold planes of 5 bits"):
        unpack_planes(torch.zeros(6, 2, dtype=torch.int32), 5, 32)


@pytest.mark.parametrize("bits", [4, 5, 6, 7])
@pytest.mark.parametrize("packing", ["auto_round:auto_awq", "auto_round:auto_gptq", "auto_round"])
def test_autoround_is_what_was_packed(bits: int, packing: str) -> None:
    """AWQ's order is within eight codes, whatever the width."""
    rng = np.random.default_rng(bits)
    groups, order = COLUMNS // GROUP, np.array([0, 2, 4, 6, 1, 3, 5, 7])
    codes = rng.integers(0, 2**bits, (COLUMNS, ROWS))
    zeros = rng.integers(1, 2**bits, (groups, ROWS))
    scales = rng.uniform(0.001, 0.1, (groups, ROWS)).astype(np.float16)
    spread = np.repeat(np.arange(groups), GROUP)
    weight = (codes - zeros[spread]).astype(np.float32) * scales[spread].astype(np.float32)

    def pack_rows(values: np.ndarray) -> Tensor:
        mixed = values.reshape(len(values), -1, 8)[:, :, order].reshape(values.shape)
        return pack_bits(mixed.T, bits).T.contiguous()

    if packing == "auto_round:auto_awq":
        parts = {"qweight": pack_rows(codes), "qzeros": pack_rows(zeros)}
    else:
        stored = zeros - (packing == "auto_round:auto_gptq")
        parts = {"qweight": pack_bits(codes, bits), "qzeros": pack_bits(stored.T, bits).T}
        parts["qzeros"] = parts["qzeros"].contiguous()
    parts["scales"] = torch.from_numpy(scales)
    found = decode("auto-round", {"packing_format": packing}, parts)
    assert torch.equal(found, torch.from_numpy(weight.T.copy()))


def test_autoround_lists_what_it_leaves_at_16_bits_as_floats() -> None:
    plain = {"a.down_proj": {"bits": 16, "data_type": "float"}, "a.o_proj": {"bits": 8}}
    config = {"packing_format": "auto_round", "extra_config": plain}
    assert LAYOUTS["auto-round"].read(config, Path()) is not None


@pytest.mark.parametrize("packing", ["auto_round:auto_awq", "auto_round:auto_gptq"])
def test_words_of_no_width(packing: str) -> None:
    words = torch.zeros(COLUMNS, 3, dtype=torch.int32)
    parts = {"qweight": words, "qzeros": words[:4], "scales": torch.ones(4, ROWS)}
    with pytest.raises(InputError, match="which is no width for 128 inputs"):
        decode("auto-round", {"packing_format": packing}, parts)


@pytest.mark.parametrize("bits", [2, 3, 5, 6, 7, 8])
def test_awq_at_other_widths_is_a_stream(bits: int) -> None:
    """As GPTQModel writes it: in no order but the outputs' own."""
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 2**bits, (COLUMNS, ROWS))
    zeros = rng.integers(0, 2**bits, (4, ROWS))
    scales = rng.uniform(0.001, 0.1, (4, ROWS)).astype(np.float32)
    words = {"qweight": pack_bits(codes.T, bits), "qzeros": pack_bits(zeros.T, bits)}
    parts = {name: values.T.contiguous() for name, values in words.items()}
    spread = np.repeat(np.arange(4), GROUP)
    weight = (codes - zeros[spread]).astype(np.float32) * scales[spread]
    config = {"bits": bits, "group_size": GROUP}
    found = decode("awq", config, parts | {"scales": torch.from_numpy(scales)})
    assert torch.equal(found, torch.from_numpy(weight.T.copy()))


def test_awq_words_that_are_of_another_version() -> None:
    """As one says gemv_fast of int32 words, or does not pack a linear of this size."""
    padded = torch.zeros(32, ROWS)
    parts = {"qweight": torch.zeros(ROWS // 4, COLUMNS, dtype=torch.int32), "scales": padded}
    config = {"version": "gemv_fast", "group_size": GROUP}
    with pytest.raises(ValueError, match=r"packed words are torch\.int32"):
        decode("awq", config, parts | {"qzeros": padded})
    words = parts | {"qweight": parts["qweight"].to(torch.int16), "qzeros": padded.int()}
    with pytest.raises(ValueError, match="qzeros are"):
        decode("awq", config, words)
    odd, layout = nn.Linear(96, ROWS, bias=False), LAYOUTS["awq"]
    with pytest.raises(InputError, match="96 inputs, which AWQ's gemv_fast does not pack"):
        layout.describe(layout.read(config, Path()), NAME, odd, {})


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


STRATEGIES: dict[str, dict[str, Any]] = {
    "tensor": {},
    "channel": {},
    "group": {"group_size": GROUP},
    "block": {"block_structure": [48, 80]},
}
GRIDS = {"tensor": (1,), "channel": (ROWS, 1), "group": (ROWS, COLUMNS // GROUP), "block": (2, 2)}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("kind", "symmetric"), [("int", False), ("int", True), ("float", True)])
def test_bytes_are_what_the_library_says(strategy: str, kind: str, symmetric: bool) -> None:
    """Blocks do not tile the weight here."""
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(-128, 128, (ROWS, COLUMNS), generator=generator).to(torch.int8)
    if kind == "float":
        codes = torch.randn(ROWS, COLUMNS, generator=generator).to(torch.float8_e4m3fn)
    scales = 0.01 + torch.rand(GRIDS[strategy], generator=generator)
    parts = {"weight": codes, "weight_scale": scales, "input_scale": torch.ones(1)}
    if not symmetric:
        zeros = torch.randint(-9, 9, GRIDS[strategy], generator=generator)
        parts["weight_zero_point"] = zeros.to(torch.int8)
    weights = {"num_bits": 8, "type": kind, "symmetric": symmetric, "strategy": strategy}
    config = compressed(
        format=f"{kind}-quantized",
        weights=weights | STRATEGIES[strategy],
        input_activations={"num_bits": 8},
    )
    # The library pads weights to whole blocks before.
    padded = (
        torch.nn.functional.pad(codes.float(), (0, 32, 0, 32)) if strategy == "block" else codes
    )
    expected = dequantize(
        padded.float(),
        scales,
        parts.get("weight_zero_point", torch.zeros(GRIDS[strategy])).float(),
        QuantizationArgs(**weights, **STRATEGIES[strategy]),
    )[:ROWS, :COLUMNS]
    torch.testing.assert_close(decode("compressed-tensors", config, parts), expected)


def test_activation_order_of_bytes() -> None:
    generator = torch.Generator().manual_seed(3)
    groups = COLUMNS // GROUP
    codes = torch.randint(-128, 128, (ROWS, COLUMNS), generator=generator).to(torch.int8)
    scales, index = torch.rand(ROWS, groups, generator=generator), torch.arange(COLUMNS) % groups
    parts = {"weight": codes, "weight_scale": scales, "weight_g_idx": index.int()}
    weights = {"num_bits": 8, "strategy": "group", "group_size": GROUP}
    config = compressed(format="naive-quantized", weights=weights)
    found = decode("compressed-tensors", config, parts)
    torch.testing.assert_close(found, codes.float() * scales[:, index])


@pytest.mark.parametrize("bits", [3, 5, 6, 7])
def test_codes_that_straddle_words(bits: int) -> None:
    """As compressed-tensors packs them since 0.18, in rows; until then words held whole codes."""
    rng = np.random.default_rng(bits)
    codes, zeros = rng.integers(0, 2**bits, (ROWS, COLUMNS)), rng.integers(0, 2**bits, (ROWS, 1))
    scales = rng.uniform(0.01, 0.1, (ROWS, 1)).astype(np.float32)
    parts = {
        "weight_packed": pack_bits(codes.T, bits).T.contiguous(),
        "weight_scale": torch.from_numpy(scales),
        "weight_zero_point": pack_bits(zeros, bits),
        "weight_shape": torch.tensor([ROWS, COLUMNS]),
    }
    weights = {"num_bits": bits, "symmetric": False, "strategy": "channel"}
    found = decode("compressed-tensors", compressed(weights=weights), parts)
    expected = (codes - zeros).astype(np.float32) * scales
    torch.testing.assert_close(found, torch.from_numpy(expected))


def test_where_servers_quantize_activations_too() -> None:
    layout = LAYOUTS["compressed-tensors"]
    shapes = {"weight": [ROWS, COLUMNS], "weight_scale": [ROWS, 1]}
    for inputs in ({}, {"input_activations": {"num_bits": 8, "dynamic": True}}):
        weights = {"num_bits": 8, "type": "int", "strategy": "channel"}
        said = layout.read(compressed(format="int-quantized", weights=weights, **inputs), Path())
        coding = layout.describe(said, NAME, LINEAR, shapes)
        assert coding.quantizes_inputs == bool(inputs)


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
        ("awq", {"version": "marlin"}, "gemm, gemv, gemv_fast, llm-awq are read at 4 bits"),
        ("awq", {"version": "gemv", "bits": 3}, "gemv at 3 bits"),
        ("awq", {"bits": 1}, "gemm at 1 bits"),
        ("gptq", {"checkpoint_format": "marlin"}, "gptq, gptq_v2, gptq_p are read"),
        ("auto-round", {"packing_format": "auto_round:llm_compressor"}, "auto_round:auto_awq"),
        ("auto-round", {"extra_config": {"a.b": {"data_type": "mx_fp"}}}, "of a.b is mx_fp"),
        ("auto-round", {"act_bits": 8}, "activations are quantized too"),
        ("auto-round", {"rotation_config": {"block_size": 32}}, "inputs are rotated"),
        ("gptq", {"is_marlin_format": True}, "is marlin"),
        ("compressed-tensors", {}, "no config_groups"),
        ("compressed-tensors", compressed(format="nvfp4-pack-quantized"), "int-quantized, .* read"),
        ("compressed-tensors", compressed(format="float-quantized"), "int of 4 bits"),
        ("compressed-tensors", compressed(weights={"num_bits": 8, "type": "float"}), "float of 8"),
        (
            "compressed-tensors",
            compressed(weights={"num_bits": 4, "strategy": "tensor"}),
            "group and channel are read of pack-quantized",
        ),
        ("compressed-tensors", {**compressed(), "kv_cache_scheme": {"num_bits": 8}}, "kv_cache"),
        ("quark", {"export": {"pack_method": "other"}}, "packed by other"),
        ("quark", {"kv_cache_quant_config": {"*k_proj": {}}}, "more than linears"),
        ("quark", {"global_quant_config": {"weight": [{}, {}]}}, "more than once"),
        ("quark", {"global_quant_config": {"weight": {"dtype": "mx"}}}, "mx None of axis None"),
        ("modelopt", {}, "algorithm is None"),
        ("modelopt", {"quant_algo": "MXFP8"}, "MXFP8: W4A16_AWQ, .* are read"),
        ("modelopt", {"quant_algo": "MIXED_PRECISION"}, "algorithm is MIXED_PRECISION"),
        (
            "modelopt",
            {"quant_algo": "MIXED_PRECISION", "quantized_layers": {"a": {"quant_algo": "X"}}},
            "algorithm is X",
        ),
        ("modelopt", {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, "cache is quantized"),
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
