"""The search for α against all of them tried by hand, and the groups that are smoothed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.studies.int8_inputs.smoothing import (
    ALPHAS,
    Seen,
    choose_alpha,
    search_smoothing,
)
from awqscope.mixedprec.models.forward import enter_blocks
from awqscope.mixedprec.models.opening import open_model


def see(inputs: Tensor, step: int = 1) -> Seen:
    seen = Seen(step)
    for batch in inputs.split(3):
        seen.add(batch)
    return seen


def error_of(inputs: np.ndarray, weights: list[np.ndarray], alpha: float) -> float:
    """The summed squared error of the outputs of weights that share their inputs."""
    columns = np.max([np.abs(weight).max(0) for weight in weights], 0)
    scales = np.abs(inputs).max(0) ** alpha / columns ** (1 - alpha)

    def rounded(values: np.ndarray) -> np.ndarray:
        steps = np.abs(values).max(1, keepdims=True) / 127
        return np.rint(values / steps) * steps

    exact = [inputs @ weight.T for weight in weights]
    found = [rounded(inputs / scales) @ rounded(weight * scales).T for weight in weights]
    return sum(((ours - theirs) ** 2).sum() for ours, theirs in zip(found, exact, strict=True))


def test_alpha_is_the_best_of_all(seed: int = 0) -> None:
    generator = np.random.default_rng(seed)
    inputs = generator.normal(size=(40, 32)) * np.exp(generator.normal(size=32))
    inputs[:, 5] *= 60
    weights = [generator.normal(size=(rows, 32)) for rows in (24, 8)]
    errors = [error_of(inputs, weights, alpha) for alpha in ALPHAS]
    seen = see(torch.tensor(inputs, dtype=torch.float32))
    found = choose_alpha([(torch.tensor(w, dtype=torch.float32), seen) for w in weights])
    assert found is not None
    assert found[0] == ALPHAS[int(np.argmin(errors))]
    assert 0 < found[0] < 1
    expected = np.abs(inputs).max(0) ** found[0]
    expected /= np.max([np.abs(weight).max(0) for weight in weights], 0) ** (1 - found[0])
    np.testing.assert_allclose(found[1], expected, rtol=1e-4)


def test_a_sample_is_spread_over_all_tokens() -> None:
    tokens = torch.arange(50.0)[:, None].repeat(1, 2)
    seen = see(tokens, step=7)
    assert torch.cat(seen.sample)[:, 0].tolist() == list(range(0, 50, 7))
    assert seen.largest is not None
    assert seen.largest.tolist() == [49.0, 49.0]
    assert choose_alpha([]) is None


@pytest.mark.parametrize(
    ("family", "smoothed"),
    [
        ("llama", {"qkv", "gate_up", "down"}),
        ("gpt_neox", {"qkv", "up"}),
        ("mixtral", {"qkv", "experts"}),
    ],
)
def test_what_has_a_place_for_scales_is_smoothed(
    family: str, smoothed: set[str], make_model: Callable[..., Path], text_file: Path
) -> None:
    """Of fewer heads of values than of queries, and after an activation function, nothing is."""
    path = make_model(family)
    model = open_model(str(path))
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(path), 64, 3)
    stream, kwargs = enter_blocks(model, windows)
    before = stream.read(slice(None)).clone()
    found = search_smoothing(model, 0, stream, kwargs[0])
    assert set(found.alphas) == smoothed
    assert set(found.alphas.values()) <= set(ALPHAS)
    kinds = {model.family.kind_of(linear).name for linear in found.scales}
    assert kinds == smoothed
    assert torch.equal(stream.read(slice(None)), before)
    if family == "llama":
        assert found.scales["mlp.gate_proj"] is found.scales["mlp.up_proj"]
        assert found.scales["self_attn.q_proj"].shape == (128,)
