"""Packed weights as makers wrote them, against what those makers say they are.

Each file of made/ is one linear of a random model that a tool quantized and saved: its tensors as
they were on disk, under `stored.` and what their names have after the linear's, and `expected`, the
weight [N, K] as the tool's own code dequantizes it. Its metadata say who wrote it (`maker`), by
which method of LAYOUTS it is read (`method`), what its config.json said (`config`, JSON), what the
linear was called (`name`), what other files beside it said (`files`, JSON: name -> text, may be
left out), and how far apart the two may be (`tolerance`, relative to the largest
weight: 0 where both compute in float32). `examples/makers` made them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from awqscope.mixedprec.foreign.method import LAYOUTS
from awqscope.mixedprec.layouts.layout import PLAIN

MADE = sorted((Path(__file__).parent / "made").glob("*.safetensors"))
NAMES = {
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.int64: "I64",
}
NAMES |= {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
NAMES |= {torch.uint32: "U32", torch.float8_e4m3fn: "F8_E4M3", torch.bool: "BOOL"}


def read_made(path: Path) -> tuple[dict[str, Tensor], Tensor, dict[str, Any]]:
    """The stored tensors by suffix, the expected weight, and the metadata of a file."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        about = dict(file.metadata())
    stored = {n.removeprefix("stored."): t for n, t in tensors.items() if n != "expected"}
    read = {key: json.loads(about[key]) for key in ("config", "files") if key in about}
    return stored, tensors["expected"].float(), about | read


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.stem)
def test_what_a_maker_wrote_is_what_it_means(path: Path, tmp_path: Path) -> None:
    stored, expected, about = read_made(path)
    for name, text in about.get("files", {}).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    layout = LAYOUTS[about["method"]]
    linear = nn.Linear(expected.shape[1], expected.shape[0], bias=False)
    assert layout.is_packed({part: NAMES[values.dtype] for part, values in stored.items()})
    said = layout.read(about["config"], tmp_path)
    shapes = {part: list(values.shape) for part, values in stored.items()}
    coding = layout.describe(said, about["name"], linear, shapes)
    missing = coding.shapes.keys() - stored.keys()
    assert missing <= set(layout.optional)
    for part in coding.shapes.keys() & stored.keys():
        assert coding.shapes[part] == shapes[part]
        assert NAMES[stored[part].dtype] in layout.types[part]
    found = layout.decode({part: stored[part] for part in coding.shapes if part in stored}, coding)
    assert found.dtype == torch.float32
    allowed = float(about["tolerance"]) * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=allowed)


def test_llm_awq_has_the_words_of_gemv_fast() -> None:
    """GPTQModel packs both by one class, which has two names for a tensor; only a GPU runs it."""
    stored, expected, about = read_made(next(path for path in MADE if path.stem.endswith("v-fast")))
    stored["scaled_zeros"] = stored.pop("qzeros")
    layout, linear = LAYOUTS["awq"], nn.Linear(expected.shape[1], expected.shape[0], bias=False)
    said = layout.read(about["config"] | {"version": "llm-awq"}, Path())
    shapes = {part: list(values.shape) for part, values in stored.items()}
    coding = layout.describe(said, about["name"], linear, shapes)
    assert coding.shapes == shapes
    torch.testing.assert_close(layout.decode(stored, coding), expected, rtol=0, atol=1e-3)


def test_a_weight_in_floating_point_is_not_packed() -> None:
    for layout in LAYOUTS.values():
        assert not layout.is_packed({PLAIN: "F16"})
        assert layout.is_packed({layout.probes[0]: "I32"})


def damage(
    stored: dict[str, Tensor], suffix: str, change: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """The tensors with another in place of one."""
    return {**stored, suffix: change(stored[suffix])}


def rewrite(before: str, after: str) -> Callable[[Tensor], Tensor]:
    """A change of a text that is stored as bytes."""
    return lambda values: torch.tensor(
        list(bytes(values.tolist()).replace(before.encode(), after.encode())), dtype=torch.uint8
    )


STATE = "weight.quant_state.bitsandbytes__nf4"


@pytest.mark.parametrize(
    ("made", "suffix", "change", "wanted"),
    [
        ("bitsandbytes-nf4", STATE, rewrite("[64, 128]", "[128, 64]"), "says shape"),
        ("bitsandbytes-nf4", STATE, rewrite("nf4", "fp4"), "says quant_type fp4"),
        ("bitsandbytes-nf4", STATE, rewrite("{", "["), "Expecting"),
        ("bitsandbytes-nf4", STATE, rewrite(": 64,", ": 32,"), "128 maxima of torch.float32"),
        ("bitsandbytes-nf4", "weight.absmax", Tensor.byte, "maxima of torch.uint8"),
        ("bitsandbytes-nf4", "weight", Tensor.half, "16384 bytes|8192 bytes|bytes hold"),
        ("bitsandbytes-nf4-double", STATE, rewrite("_offset", "_other"), "their offset None"),
        ("bitsandbytes-nf4-double", STATE, rewrite(": 256", ": 128"), "nested_blocksize 128"),
        ("hqq-4-bit", "packing", rewrite("4bit", "8bit"), "packing 8bit_u8"),
        ("hqq-4-bit", "axis", torch.zeros_like, "axis 0"),
        ("hqq-3-bit", "W_q", Tensor.byte, "words are torch.uint8"),
    ],
)
def test_what_a_matrix_says_of_itself_is_checked(
    made: str, suffix: str, change: Callable[[Tensor], Tensor], wanted: str
) -> None:
    stored, expected, about = read_made(Path(__file__).parent / "made" / f"{made}.safetensors")
    layout = LAYOUTS[about["method"]]
    linear = nn.Linear(expected.shape[1], expected.shape[0], bias=False)
    shapes = {part: list(values.shape) for part, values in stored.items()}
    said = layout.read(about["config"], Path())
    coding = layout.describe(said, about["name"], linear, shapes)
    with pytest.raises(ValueError, match=wanted):
        layout.decode(damage(stored, suffix, change), coding)


@pytest.mark.parametrize(("variant", "rounds"), [("int8", True), ("nf4", False)])
def test_llm_int8_rounds_inputs_too(variant: str, rounds: bool, tmp_path: Path) -> None:
    stored, expected, about = read_made(MADE[0].parent / f"bitsandbytes-{variant}.safetensors")
    layout, linear = LAYOUTS["bitsandbytes"], nn.Linear(expected.shape[1], expected.shape[0])
    shapes = {part: list(values.shape) for part, values in stored.items()}
    said = layout.read(about["config"], tmp_path)
    assert layout.describe(said, about["name"], linear, shapes).quantizes_inputs == rounds
