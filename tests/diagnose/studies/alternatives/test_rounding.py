"""Weights rounded by libraries, against their formats' formulas written out."""

import sys
from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors import safe_open

from awqscope.diagnose.studies.alternatives import rounding as rounding_module
from awqscope.diagnose.studies.alternatives.llama_cpp import (
    Q4KM,
    LlamaCpp,
    load_quantize,
    takes_more,
)
from awqscope.diagnose.studies.alternatives.rounding import (
    Gguf,
    ModelLinear,
    Nf4,
    UnusableLibraryError,
    check_mix,
)
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.family import UnitKind
from awqscope.mixedprec.families.table import LLAMA_UNITS
from tests.help.root import ROOT

# The 16 values of the appendix of the QLoRA paper, to the digits that it gives.
CODES = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    dtype=np.float32,
)
MADE = ROOT / "tests" / "mixedprec" / "layouts" / "made"
has_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="the extra is not installed"
)


def draw(rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows)
    weight = 0.05 * torch.randn(rows, columns, generator=generator)
    weight[0, :5] *= 20
    return weight


def nearest_code(weight: np.ndarray) -> np.ndarray:
    """NF4 by its definition: the nearest of 16 values, times the largest of each 64."""
    blocks = weight.reshape(-1, 64)
    largest = np.abs(blocks).max(1, keepdims=True)
    distances = np.abs((blocks / largest)[..., None] - CODES)
    return (CODES[distances.argmin(-1)] * largest).reshape(weight.shape)


@has_bitsandbytes
# Of rows of 96 a block runs over the end.
@pytest.mark.parametrize("shape", [(64, 128), (48, 96), (10, 64)])
def test_nf4_is_the_nearest_code(shape: tuple[int, int]) -> None:
    weight = draw(*shape)
    np.testing.assert_allclose(Nf4(double=False)(weight), nearest_code(weight.numpy()), atol=1e-7)
    twice = Nf4(double=True)(weight)
    apart = (twice - Nf4(double=False)(weight)).norm() / weight.norm()
    assert 0 < apart < 0.02


@has_bitsandbytes
@pytest.mark.parametrize("double", [False, True])
def test_nf4_is_what_bitsandbytes_makes_of_it(double: bool) -> None:
    from bitsandbytes import functional

    weight = draw(64, 128)
    codes, state = functional.quantize_4bit(
        weight, quant_type="nf4", blocksize=64, compress_statistics=double
    )
    theirs = functional.dequantize_4bit(codes, state)
    torch.testing.assert_close(Nf4(double)(weight), theirs, atol=1e-7, rtol=1e-6)
    parts = {**state.as_dict(packed=True), "weight": codes}
    stored = sum(part.nbytes for name, part in parts.items() if "quant_state" not in name)
    assert Nf4(double).size(64, 128) == stored


@pytest.mark.parametrize(("name", "double"), [("nf4", False), ("nf4-double", True)])
def test_nf4_takes_what_files_of_transformers_take(name: str, double: bool) -> None:
    with safe_open(MADE / f"bitsandbytes-{name}.safetensors", "pt") as file:
        parts = {key: file.get_tensor(key) for key in file.keys()}
    rows, columns = parts.pop("expected").shape
    stored = sum(part.nbytes for key, part in parts.items() if "quant_state" not in key)
    assert Nf4(double).size(rows, columns) == stored


def half(values: np.ndarray) -> np.ndarray:
    """As float16 stores them."""
    return values.astype(np.float16).astype(np.float32)


def q4_0(blocks: np.ndarray) -> np.ndarray:
    """Codes 0 to 15 around 8, by the value of the largest size, which gets code 0."""
    at = np.abs(blocks).argmax(1)[:, None]
    scale = np.take_along_axis(blocks, at, 1) / -8
    codes = np.clip(np.floor(blocks / scale + 8.5), 0, 15)
    return half(scale) * (codes - 8)


def q4_1(blocks: np.ndarray) -> np.ndarray:
    """Codes 0 to 15 from the smallest value to the largest."""
    low = blocks.min(1, keepdims=True)
    scale = (blocks.max(1, keepdims=True) - low) / 15
    codes = np.clip(np.floor((blocks - low) / scale + 0.5), 0, 15)
    return half(scale) * codes + half(low)


def q8_0(blocks: np.ndarray) -> np.ndarray:
    """Codes −127 to 127."""
    scale = np.abs(blocks).max(1, keepdims=True) / 127
    return half(scale) * np.sign(blocks) * np.floor(np.abs(blocks / scale) + 0.5)


@pytest.mark.parametrize(
    ("kind", "formula", "bits"), [("Q4_0", q4_0, 4.5), ("Q4_1", q4_1, 5.0), ("Q8_0", q8_0, 8.5)]
)
def test_types_of_gguf_are_their_formulas(kind: str, formula: object, bits: float) -> None:
    weight = draw(16, 96)
    expected = formula(weight.numpy().reshape(-1, 32)).reshape(16, 96)  # type: ignore[operator]
    found = Gguf(kind)(weight).numpy()
    # A value in the middle of two codes may fall to either, by the last bit of a quotient.
    assert (np.abs(found - expected) > 1e-6).mean() < 0.005
    assert Gguf(kind).size(16, 96) * 8 == bits * 16 * 96


def at(
    name: str, columns: int = 96, block: int = 0, blocks: int = 8, architecture: str = "llama"
) -> ModelLinear:
    kind = next(kind for kind in LLAMA_UNITS if name in kind.linears)
    return ModelLinear(architecture, block, blocks, kind, name, columns)


def test_what_a_library_or_a_model_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    check_mix(Gguf("Q4_0"), "gguf-q4_0", at("mlp.down_proj"))
    with pytest.raises(InputError, match="blocks of 32 of gguf-q4_0 do not divide the 80 inputs"):
        check_mix(Gguf("Q4_0"), "gguf-q4_0", at("mlp.down_proj", 80))
    monkeypatch.setattr(rounding_module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="nf4 needs bitsandbytes") as refused:
        check_mix(Nf4(double=False), "nf4", at("mlp.down_proj"))
    assert refused.value.remedy == "pip install 'awqscope[alternatives]'"


@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="the extra is not installed")
# Of the type beside it that the package quantizes itself, as wide, and how many times its error.
@pytest.mark.parametrize(("kind", "beside"), [("Q4_K", "Q4_0"), ("Q5_K", "Q5_0")])
def test_k_quants_of_llama_cpp(kind: str, beside: str) -> None:
    weight = draw(16, 512)

    def error(found: torch.Tensor) -> float:
        return float((found - weight).norm() / weight.norm())

    plain = Gguf(beside)
    assert torch.equal(LlamaCpp(beside)(weight), plain(weight))
    assert LlamaCpp(kind).size(16, 512) == plain.size(16, 512)
    assert error(LlamaCpp(kind)(weight)) < error(plain(weight))


def test_the_mix_raises_what_llama_quantize_raises() -> None:
    """llama.cpp says of 7B llamas as Q4_K_M: 193 tensors are Q4_K and 33 Q6_K. One of each is
    outside the blocks."""
    names = [linear for kind in LLAMA_UNITS for linear in kind.linears]
    chosen = Counter(
        Q4KM().choose(at(linear, 4096, block, 32)) for block in range(32) for linear in names
    )
    assert chosen == {LlamaCpp("Q4_K"): 192, LlamaCpp("Q6_K"): 32}
    raised = [block for block in range(32) if takes_more(block, 32)]
    assert raised == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    for linear, kind in (("self_attn.v_proj", "Q6_K"), ("self_attn.q_proj", "Q4_K")):
        assert Q4KM().choose(at(linear, 4096, 31, 32)) == LlamaCpp(kind)
    # Inputs that no block of 256 tiles.
    assert Q4KM().choose(at("self_attn.q_proj", 576)) == LlamaCpp("Q5_0")
    assert Q4KM().choose(at("mlp.down_proj", 576)) == LlamaCpp("Q8_0")
    fused = UnitKind("qkv", ("self_attn.qkv_proj",), "self_attn.qkv_proj")
    whole = ModelLinear("phi3", 0, 8, fused, "self_attn.qkv_proj", 256)
    assert Q4KM().choose(whole) == LlamaCpp("Q5_K")


@pytest.mark.parametrize(
    "linear",
    [
        at("mlp.down_proj", architecture="falcon"),
        at("mlp.down_proj", blocks=80),
        ModelLinear("mixtral", 0, 8, UnitKind("experts", ("e.0.w1",), "e"), "e.0.w1", 256),
    ],
)
def test_what_is_mixed_by_other_rules_is_refused(linear: ModelLinear) -> None:
    with pytest.raises(InputError, match=r"rules that are not followed here.*--add"):
        Q4KM().choose(linear)


def test_a_library_that_does_not_load_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(UnusableLibraryError, match="the xllamacpp that is installed cannot be"):
        load_quantize.__wrapped__()
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(UnusableLibraryError, match="the bitsandbytes that is installed cannot be"):
        Nf4(double=False)(torch.zeros(64, 64))
