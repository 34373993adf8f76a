"""The noise floor against transformers' own model, whole, in a higher precision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.inside.noise import MOST_WINDOWS, choose_windows, measure_noise
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel

Setup = tuple[SourceModel, Tensor]


@pytest.fixture(scope="module", params=["llama", "gpt_neox"])
def setup(
    request: pytest.FixtureRequest, make_model: Callable[..., Path], text_file: Path
) -> Setup:
    path = make_model(request.param, num_hidden_layers=4)
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(path), 64, 4)
    return open_model(str(path)), windows


def in_bfloat16(layer: nn.Module) -> None:
    """Have a layer of transformers' model compute its products in bfloat16."""
    forward = layer.forward

    def lowered(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return forward(*args, **kwargs)

    layer.forward = lowered


@torch.no_grad()
def log_probabilities(
    model: SourceModel, windows: Tensor, dtype: torch.dtype, *, lowered: bool = False
) -> Tensor:
    """By transformers' own model in a type [windows, tokens, vocabulary], in float64."""
    whole = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32).eval().to(dtype)
    if lowered:
        for layer in whole.get_submodule(model.family.blocks):
            in_bfloat16(layer)
    logits = whole(windows, use_cache=False).logits[:, :-1]
    return logits.double().log_softmax(-1)


def kl(one: Tensor, other: Tensor) -> Tensor:
    return (one.exp() * (one - other)).sum(-1)


@pytest.mark.parametrize("exact", [torch.float32, torch.float64])
def test_the_floor_of_bfloat16(setup: Setup, exact: torch.dtype) -> None:
    """Against float32, as it is measured, and against float64, which float32 stands for."""
    model, windows = setup
    found = measure_noise(model, windows, "bfloat16")
    expected = log_probabilities(model, windows, exact)
    lowered = log_probabilities(model, windows, torch.float32, lowered=True)
    assert found["kl"].shape == (4, 63)
    assert found["kl"].mean() > 1e-6
    torch.testing.assert_close(
        found["kl"].double(), kl(expected, lowered), rtol=2e-2, atol=1e-3 * found["kl"].mean()
    )
    chosen = windows[:, 1:, None]
    differences = (lowered - expected).gather(-1, chosen)[..., 0].abs()
    assert found["nll_difference"].mean() == pytest.approx(differences.mean().item(), rel=1e-2)


def test_the_floor_of_float32_is_against_float64(setup: Setup) -> None:
    """Of that of a whole model, in whose float32 the head is too."""
    model, windows = setup
    found = measure_noise(model, windows, "float32")["kl"].double().mean().item()
    expected = log_probabilities(model, windows, torch.float64)
    theirs = kl(expected, log_probabilities(model, windows, torch.float32)).mean().item()
    assert 0 < found < 1e-9
    assert 0.2 < found / theirs < 2


def test_tf32_without_a_device_rounds_nothing(setup: Setup) -> None:
    """On the CPU its products are float32's: that it is then measured against float32 is seen."""
    model, windows = setup
    assert not measure_noise(model, windows, "tf32")["kl"].any()


def test_the_windows_are_few_and_spread() -> None:
    assert choose_windows(1) == [0]
    assert choose_windows(4) == [0, 1, 2, 3]
    assert choose_windows(161) == [0, 40, 80, 120]
    assert all(len(set(choose_windows(n))) == min(n, MOST_WINDOWS) for n in range(1, 50))
