"""The sweep against the naive way: build each partly quantized model whole and run it."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.passes.chunks import count_work
from awqscope.diagnose.statistics.likelihood import prepare_reference, score
from awqscope.diagnose.studies.int8_inputs.rounded_block import InputSweep
from awqscope.diagnose.sweep.branches import (
    CONTROL,
    REFERENCE,
    UNIFORM,
    Sweep,
    block_branches,
    count_streams,
    list_subsets,
    view_name,
)
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.diagnose.sweep.promotions import promotion_branches, unit_branch
from awqscope.diagnose.sweep.results import join_chunks, reduce_chunk
from awqscope.diagnose.sweep.swappable import read_swappable, uniform_widths
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.families.table import list_units
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import list_slices
from awqscope.mixedprec.scheme import Scheme

Setup = tuple[SourceModel, Tensor, Sweep]
KEPT = frozenset({"1.down"})


@pytest.fixture(scope="module", params=["llama", "gpt_neox"])
def setup(
    request: pytest.FixtureRequest,
    make_model: Callable[..., Path],
    text_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Setup:
    """A searched model of four blocks, windows, and a sweep of every view of every block."""
    path = make_model(request.param, num_hidden_layers=4)
    model = open_model(str(path))
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(path), 64, 5)
    folder = tmp_path_factory.mktemp("awq")
    search_model(model, windows, [Scheme(4, 64, False), Scheme(8, 64, True)], folder)
    branches = block_branches(model, 4, KEPT)
    return model, windows, Sweep(4, (4, 8), KEPT, folder, branches)


@torch.no_grad()
def naive_logits(setup: Setup, widths: list[dict[str, int]]) -> tuple[Tensor, Tensor]:
    """Logits [windows, tokens, vocabulary] of the reference and of the whole model with these
    widths in each block."""
    model, windows, sweep = setup
    whole = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32).eval()
    expected = whole(windows, use_cache=False).logits[:, :-1]
    for number, chosen in enumerate(widths):
        swappable = read_swappable(model, number, sweep.searches, sweep.bits)
        block = whole.get_submodule(model.prefix(number))
        for name, weight in swappable.weights(chosen).items():
            block.get_parameter(name).data = weight
    return expected, whole(windows, use_cache=False).logits[:, :-1]


def naive(setup: Setup, widths: list[dict[str, int]]) -> Tensor:
    """KL [windows, tokens] of the whole model with these widths in each block."""
    expected, logits = naive_logits(setup, widths)
    return score(prepare_reference(expected), logits, setup[1][:, 1:])[1]


def test_every_view_equals_the_naive_model(setup: Setup) -> None:
    model, windows, sweep = setup
    scores = run_sweep(model, windows, sweep)
    low = [dict(uniform_widths(model, 4, KEPT, block)) for block in range(4)]
    high: list[dict[str, int]] = [{}] * 4
    for block in range(4):
        expected = {
            "isolated": [*high[:block], low[block], *high[block + 1 :]],
            "cumulative": [*low[: block + 1], *high[block + 1 :]],
            "restored": [*low[:block], high[block], *low[block + 1 :]],
        }
        for view, widths in expected.items():
            kl = scores[view_name(view, block)].kl
            assert (kl - naive(setup, widths)).abs().max() < 1e-5, (view, block)
            assert kl.mean() > 1e-4
    assert (scores[UNIFORM].kl - naive(setup, low)).abs().max() < 1e-5


def test_units_and_promotions_equal_the_naive_model(setup: Setup) -> None:
    model, windows, sweep = setup
    units = {unit.name: unit for unit in list_units(model.family, model.blocks)}
    promotions = promotion_branches(model, 1, 4, 8, KEPT)
    chosen = [branch for branch, names in promotions.items() if len(names) == 2]
    branches = (unit_branch(model, units["2.o"], 4), *chosen)
    scores = run_sweep(model, windows, Sweep(4, (4, 8), KEPT, sweep.searches, branches))
    low = [dict(uniform_widths(model, 4, KEPT, block)) for block in range(4)]
    widths: list[dict[str, int]] = [{}, {}, dict.fromkeys(units["2.o"].linears, 4), {}]
    assert (scores["unit.2.o.4"].kl - naive(setup, widths)).abs().max() < 1e-5
    for branch in chosen:
        widths = [*low[:1], dict(branch.widths), *low[2:]]
        assert 8 in widths[1].values()
        assert (scores[branch.name].kl - naive(setup, widths)).abs().max() < 1e-5


def test_likeliest_tokens_equal_the_naive_models(setup: Setup) -> None:
    model, windows, sweep = setup
    scores = run_sweep(model, windows, sweep)
    low = [dict(uniform_widths(model, 4, KEPT, block)) for block in range(4)]
    for trunk, logits in zip((REFERENCE, UNIFORM), naive_logits(setup, low), strict=True):
        expected = logits.softmax(-1)
        found = scores[trunk].top_probabilities
        torch.testing.assert_close(found, expected.topk(5).values, rtol=1e-4, atol=1e-6)
        there = expected.gather(-1, scores[trunk].top_tokens.long())
        torch.testing.assert_close(found, there, rtol=1e-4, atol=1e-6)
    assert not torch.equal(scores[REFERENCE].top_tokens, scores[UNIFORM].top_tokens)


def test_a_block_swapped_with_itself_gives_exactly_zero(setup: Setup) -> None:
    model, windows, sweep = setup
    scores = run_sweep(model, windows, sweep)
    assert not scores[CONTROL].kl.any()
    assert not scores[REFERENCE].kl.any()


def test_chunks_change_nothing(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    model, windows, sweep = setup
    whole = run_sweep(model, windows, sweep)
    parts = [run_sweep(model, windows[chunk], sweep) for chunk in list_slices(len(windows), 2)]
    for name, scores in whole.items():
        joined = torch.cat([part[name].kl for part in parts])
        assert torch.allclose(joined, scores.kl, atol=1e-6), name
    monkeypatch.setattr("awqscope.diagnose.sweep.results.WORST_WINDOWS", 3)
    expected = join_chunks([reduce_chunk(whole, model.blocks)])
    reduced = join_chunks([reduce_chunk(part, model.blocks) for part in parts])
    assert expected["worst"].tolist() == whole[UNIFORM].kl.mean(1).topk(3).indices.tolist()
    assert reduced.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(reduced[name], values, rtol=1e-4, atol=1e-6, msg=name)


def test_equal_models_share_a_stream(setup: Setup) -> None:
    model, _, sweep = setup
    # Three views of four blocks, control, two trunks; block 0's first two views are one model, the
    # last cumulative one is the uniform model, and the last restored one the cumulative before it.
    assert count_streams(model, sweep) == 3 * 4 + 1 + 2 - 3


def test_observer_sees_both_trunks(setup: Setup) -> None:
    model, windows, sweep = setup
    seen = {}

    def observe(block: int, site: str, reference: Tensor, uniform: Tensor) -> None:
        assert reference.shape == uniform.shape
        seen[block, site] = (reference - uniform).abs().max().item()

    run_sweep(model, windows, sweep, observe=observe)
    sites = [*(kind.name for kind in model.family.units), "output"]
    assert set(seen) == {(block, site) for block in range(4) for site in sites}
    assert seen[0, "qkv"] == 0.0
    assert seen[3, "output"] > 0.0


@pytest.mark.parametrize(
    ("family", "sites"),
    [
        (
            "phi3",
            {
                "qkv": "self_attn.qkv_proj",
                "o": "self_attn.o_proj",
                "gate_up": "mlp.gate_up_proj",
                "down": "mlp.down_proj",
            },
        ),
        (
            "gpt_neox",
            {
                "qkv": "attention.query_key_value",
                "o": "attention.dense",
                "up": "mlp.dense_h_to_4h",
                "down": "mlp.dense_4h_to_h",
            },
        ),
    ],
)
@torch.no_grad()
def test_inputs_of_fused_projections_are_those_of_transformers(
    family: str, sites: dict[str, str], make_model: Callable[..., Path]
) -> None:
    """A fused linear is a unit, and a site of its own."""
    model = open_model(str(make_model(family)))
    windows = torch.randint(0, 300, (2, 32))
    seen: dict[tuple[int, str], Tensor] = {}

    def observe(block: int, site: str, reference: Tensor, rounded: Tensor) -> None:
        seen[block, site] = reference

    # Both windows are one batch.
    run_sweep(
        model, windows, InputSweep("int8", frozenset(), (), lambda block: {}), observe=observe
    )
    whole = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32).eval()
    expected: dict[tuple[int, str], Tensor] = {}
    for block in range(model.blocks):
        for site, name in sites.items():

            def hook(_: object, args: tuple[Tensor], at: tuple[int, str] = (block, site)) -> None:
                expected[at] = args[0]

            linear = whole.get_submodule(f"{model.prefix(block)}.{name}")
            linear.register_forward_pre_hook(hook)
    whole(windows, use_cache=False)
    assert seen.keys() == expected.keys() | {(block, "output") for block in range(model.blocks)}
    for at, values in expected.items():
        torch.testing.assert_close(seen[at], values, rtol=1e-4, atol=1e-4)
    units = {unit.name: unit.linears for unit in list_units(model.family, model.blocks)}
    assert units == {f"{n}.{site}": (sites[site],) for n, site in expected}


def test_subsets() -> None:
    assert list_subsets(["a", "b", "c"]) == [
        ("a",),
        ("b",),
        ("c",),
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
        ("a", "b", "c"),
    ]


def test_progress_counts_work(setup: Setup) -> None:
    """Later blocks have more streams to take through, and the head takes those at its end."""
    model, windows, sweep = setup
    work = count_work(model, sweep, windows.shape[1])
    # Three views of each block are born at it, those of the first and last coincide with others.
    alive = [later - earlier for earlier, later in itertools.pairwise((0, *work))][:-1]
    assert len(work) == model.blocks + 1
    assert alive == sorted(alive) and alive[0] < alive[-1] <= count_streams(model, sweep)
    told: list[int] = []
    scored: list[int] = []
    run_sweep(model, windows, sweep, on_block=told.append, on_head=scored.append)
    assert told == list(range(1, model.blocks + 1))
    assert scored == list(range(1, len(windows) + 1))
