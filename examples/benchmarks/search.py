"""The AWQ search against stock autoawq and llm-compressor's AWQ on the bundled model.

`python -m examples.benchmarks.search`; stock is run with its originals copied (on CPU it corrupts
weights otherwise): in float16, as it comes, and in float32, whose choices are compared.
llm-compressor, where it is installed (see `make test-targets`), searches scales and no clipping:
it has less to do. Its time is of the whole `oneshot` in float32, which ends with rounded weights.
"""

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from awqscope.app.demo import find_demo
from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.mixedprec.awq.arithmetic import fake_quantize
from awqscope.mixedprec.awq.autoawq import MendedQuantizer, quantize_with_autoawq
from awqscope.mixedprec.awq.choices import BlockSearch, load_search, search_path
from awqscope.mixedprec.awq.realise import scale_block
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.models.forward import get_linear
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.scheme import Scheme
from examples.benchmarks.pieces import Piece, print_all

SCHEME = Scheme(4, 128, False)


def run_stock(windows: torch.Tensor, dtype: torch.dtype) -> tuple[float, list[BlockSearch]]:
    """Seconds and choices of stock autoawq."""
    model = AutoModelForCausalLM.from_pretrained(find_demo(), dtype=dtype).eval()
    began = time.perf_counter()
    searches = quantize_with_autoawq(model, "llama", windows, SCHEME, MendedQuantizer)
    return time.perf_counter() - began, searches


def run_ours(windows: torch.Tensor) -> tuple[float, list[BlockSearch]]:
    """Seconds and choices of ours."""
    model = open_model(str(find_demo()))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        search_model(model, windows, [SCHEME], Path(folder))
        seconds = time.perf_counter() - began
        paths = [search_path(Path(folder), block, SCHEME.bits) for block in range(model.blocks)]
        return seconds, [load_search(path) for path in paths]


def run_llm_compressor(
    windows: torch.Tensor, tokenizer: PreTrainedTokenizerBase
) -> tuple[float, nn.Module]:
    """Seconds and the rounded model of llm-compressor's AWQ."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.pipelines.cache import IntermediatesCache
    from loguru import logger

    logger.remove()
    if not torch.cuda.is_available():
        # It pins pages for an accelerator even where there is none.
        IntermediatesCache._pin_intermediate = staticmethod(lambda value: None)
    model = AutoModelForCausalLM.from_pretrained(find_demo(), dtype=torch.float32).eval()
    weights = QuantizationArgs(
        num_bits=SCHEME.bits,
        type="int",
        symmetric=SCHEME.symmetric,
        strategy="group",
        group_size=SCHEME.group_size,
    )
    groups = {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}
    recipe = [AWQModifier(), QuantizationModifier(config_groups=groups, ignore=["lm_head"])]
    began = time.perf_counter()
    oneshot(
        model=model,
        processor=tokenizer,
        recipe=recipe,
        dataset=Dataset.from_list([{"input_ids": window} for window in windows.tolist()]),
        num_calibration_samples=len(windows),
        max_seq_length=windows.shape[1],
    )
    return time.perf_counter() - began, model


def realise_choices(searches: list[BlockSearch]) -> nn.Module:
    """transformers' model scaled, clipped and rounded by these choices."""
    model = AutoModelForCausalLM.from_pretrained(find_demo(), dtype=torch.float32).eval()
    for number, search in enumerate(searches):
        block = scale_block(model.model.layers[number], search.scales)
        for name, module in block.named_modules():
            if isinstance(module, nn.Linear):
                weight = module.weight.data
                if name in search.clips:
                    limit = search.clips[name][:, :, None]
                    grouped = weight.view(*search.clips[name].shape, -1)
                    weight = grouped.clamp(-limit, limit).view_as(weight)
                get_linear(block, name).weight.data = fake_quantize(weight, SCHEME)
        model.model.layers[number] = block
    return model


@torch.no_grad()
def measure_ppl(model: nn.Module, windows: torch.Tensor) -> float:
    """Perplexity by transformers' own loss."""
    losses = [model(input_ids=w[None], labels=w[None]).loss.item() for w in windows]
    return math.exp(sum(losses) / len(losses))


def compare(stock: list[BlockSearch], ours: list[BlockSearch]) -> str:
    """How equal two sets of choices are."""
    scales, clips, largest = [], [], 0.0
    for a, b in zip(stock, ours, strict=True):
        for x, y in zip(a.scales, b.scales, strict=True):
            difference = ((x.scales - y.scales).abs() / x.scales).max().item()
            scales.append(difference < 1e-4)
            largest = max(largest, difference)
        for name, clip in a.clips.items():
            difference = (clip - b.clips[name]).abs() / clip.abs().clamp(min=1e-9)
            clips += (difference < 1e-4).flatten().tolist()
    return (
        f"{sum(scales)}/{len(scales)} scale vectors and {sum(clips)}/{len(clips)} clips equal; "
        f"largest relative difference of a scale {largest:.1e}"
    )


@dataclass(frozen=True)
class Texts:
    """Windows to search on and to measure with, of the bundled model."""

    tokenizer: PreTrainedTokenizerBase
    windows: torch.Tensor
    held_out: torch.Tensor


def read_texts(count: int) -> Texts:
    """So many windows to search on."""
    folder = find_demo()
    tokenizer = load_tokenizer(folder)
    calib, valid = (load_corpus(str(folder / f"{name}.txt")) for name in ("calib", "valid"))
    windows = cut_windows(calib, tokenizer, 512, count)
    return Texts(tokenizer, windows, cut_windows(valid, tokenizer, 256, 32))


def compare_with_stock(count: int) -> str:
    """Times and choices of stock autoawq in float32 beside ours."""
    texts = read_texts(count)
    ours, mine = run_ours(texts.windows)
    full, stock = run_stock(texts.windows, torch.float32)
    theirs, own = (
        measure_ppl(realise_choices(choices), texts.held_out) for choices in (stock, mine)
    )
    return (
        f"{texts.windows.numel()} tokens: stock autoawq in float32 / ours {full / ours:.1f}x; "
        f"PPL of its choices {theirs:.5f}, of ours {own:.5f}; {compare(stock, mine)}"
    )


def compare_with_half(count: int) -> str:
    """The time of stock autoawq as it comes."""
    windows = read_texts(count).windows
    ours, _ = run_ours(windows)
    half, _ = run_stock(windows, torch.float16)
    return f"{windows.numel()} tokens: stock autoawq in float16 / ours {half / ours:.1f}x"


def compare_with_llm_compressor(count: int) -> str:
    """Time and perplexity of llm-compressor."""
    texts = read_texts(count)
    ours, _ = run_ours(texts.windows)
    other, model = run_llm_compressor(texts.windows, texts.tokenizer)
    return (
        f"{texts.windows.numel()} tokens: llm-compressor (scales only) / ours "
        f"{other / ours:.1f}x; PPL {measure_ppl(model, texts.held_out):.5f}"
    )


def list_pieces() -> Iterator[Piece]:
    """Stock and, where it is installed, llm-compressor at two sizes; float16 at the smaller."""
    for count in (8, 32):
        kinds = {"stock": compare_with_stock}
        if count == 8:
            kinds["float16"] = compare_with_half
        if find_spec("llmcompressor"):
            kinds["llm-compressor"] = compare_with_llm_compressor
        for name, kind in kinds.items():
            yield Piece(f"search, {name}, {count}", partial(kind, count))


if __name__ == "__main__":
    print_all(list_pieces())
