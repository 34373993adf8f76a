"""The blockwise estimator against its formula computed at once, and against exact damage."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoModelForCausalLM

from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.sweep.branches import Sweep
from awqscope.diagnose.sweep.estimator import estimate_units, sampling_error, window_seed
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.diagnose.sweep.promotions import unit_branch
from awqscope.diagnose.sweep.swappable import read_swappable
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.families.table import list_units
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.scheme import Scheme

Setup = tuple[SourceModel, torch.Tensor, Path]


@pytest.fixture(scope="module")
def setup(
    make_model: Callable[..., Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Setup:
    path = make_model("llama", num_hidden_layers=4)
    model = open_model(str(path))
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(path), 64, 24)
    folder = tmp_path_factory.mktemp("awq")
    search_model(model, windows, [Scheme(4, 64, False), Scheme(8, 64, True)], folder)
    return model, windows, folder


def test_blockwise_equals_one_backward_pass(setup: Setup) -> None:
    """The same sampled tokens, one autograd graph over the whole model, the formula spelt out."""
    model, windows, searches = setup
    windows = windows[:1]
    found = estimate_units(model, windows, searches, (4,), seed=5)
    whole = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32).eval()
    caught: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, module in whole.named_modules():
        if ".layers." in name and isinstance(module, torch.nn.Linear):
            module.register_forward_hook(
                lambda _, args, output, name=name: caught.__setitem__(name, (args[0], output))
            )
    logits = whole(windows, use_cache=False).logits[0, :-1]
    log_p = logits.log_softmax(-1)
    generator = torch.Generator().manual_seed(window_seed(5, 0, 0))
    sampled = torch.multinomial(log_p.detach().exp(), 1, generator=generator)
    outputs = [output for _, output in caught.values()]
    gradients = torch.autograd.grad(log_p.gather(-1, sampled).sum(), outputs)
    by_name = dict(zip(caught, gradients, strict=True))
    for unit in list_units(model.family, model.blocks):
        swappable = read_swappable(model, unit.block, searches, (4,))
        every = [linear for kind in model.family.units for linear in kind.linears]
        effective = swappable.weights(dict.fromkeys(every, 4))
        products = 0
        for linear in unit.linears:
            full = f"{model.prefix(unit.block)}.{linear}"
            delta = effective[f"{linear}.weight"] - whole.get_submodule(full).weight
            product = (by_name[full] * (caught[full][0] @ delta.T)).sum(-1)
            alone = 0.5 * product.square().sum() / (windows.shape[1] - 1)
            assert found.linears[full, 4].item() == pytest.approx(alone.item(), rel=1e-3)
            products = products + product
        expected = 0.5 * products.square().sum() / (windows.shape[1] - 1)
        assert found.units[unit.name, 4].item() == pytest.approx(expected.item(), rel=1e-3)


def test_draws_are_samples_of_their_own(setup: Setup) -> None:
    model, windows, searches = setup
    first, again, other, seeded = (
        estimate_units(model, windows[:2], searches, (4,), seed=seed, draw=draw).units["0.qkv", 4]
        for seed, draw in ((0, 0), (0, 0), (0, 1), (2**20, 0))
    )
    assert torch.equal(first, again)
    assert len({tuple(each.tolist()) for each in (first, other, seeded)}) == 3
    # A window's samples are its own, whichever windows are with it.
    alone = estimate_units(model, windows[1:2], searches, (4,), seed=0, numbers=[1])
    assert alone.units["0.qkv", 4] == pytest.approx(first[1:].numpy(), rel=1e-5)


def test_ranks_units_as_exact_measurement_does(setup: Setup) -> None:
    model, windows, searches = setup
    estimates = estimate_units(model, windows, searches, (4, 8), seed=0).units
    units = list_units(model.family, model.blocks)
    branches = tuple(unit_branch(model, unit, 4) for unit in units)
    scores = run_sweep(model, windows, Sweep(4, (4, 8), frozenset(), searches, branches))
    exact = [scores[branch.name].kl.mean().item() for branch in branches]
    estimated = [estimates[unit.name, 4].mean().item() for unit in units]
    # Random weights mix tokens more than trained ones; whole/test_demo.py asks more of a
    # trained one.
    assert spearmanr(exact, estimated).statistic > 0.8
    assert all(estimates[u.name, 8].mean() < 0.1 * estimates[u.name, 4].mean() for u in units)


def test_sampling_error_is_told_from_how_windows_differ() -> None:
    """Draws of known spread around means that differ by window far more."""
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(1, 3, 40, generator=generator, dtype=torch.float64) * 10 + 1
    noise = 0.3 * torch.randn(4, 3, 40, generator=generator, dtype=torch.float64)
    draws = means + noise
    # Means of 4 draws and 40 windows: 1.96 · 0.3 / √160 each, over their mean.
    expected = 1.96 * 0.3 / 160**0.5 / float(draws.mean())
    assert sampling_error(draws) == pytest.approx(expected, rel=0.15)
    assert sampling_error(draws[:1]) > 3 * sampling_error(draws)
    assert sampling_error(torch.zeros(1, 3, 40)) == 0
    # One draw of one window says nothing of its error; a second draw does.
    assert sampling_error(draws[:1, :, :1]) == float("inf")
    assert 0 < sampling_error(draws[:2, :, :1]) < 1
