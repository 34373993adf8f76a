"""The largest activations, against hooks on transformers' own models: the reference, and the
checkpoint as it is on disk, whose linears take scaled inputs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from awqscope.diagnose.entries.headline import Largest
from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.sweep.branches import Sweep
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.diagnose.sweep.ranges import RangeLog, RangeWatch, join_ranges
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.checkpoints.writer import write_checkpoint
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.recipes.recipe import make_recipe
from awqscope.mixedprec.scheme import Scheme

SCHEME = Scheme(4, 64, False)


@torch.no_grad()
def watch_whole(path: Path, windows: Tensor) -> dict[tuple[str, str], float]:
    """The largest |value| into and out of every module of transformers' model, by full name."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    model(windows[:1])  # packed weights are unpacked at the first forward
    found: dict[tuple[str, str], float] = {}

    def note(name: str, values: object) -> None:
        if isinstance(values, tuple):
            values = values[0] if values else None
        if isinstance(values, Tensor) and values.is_floating_point():
            found[name] = max(found.get(name, 0.0), float(values.abs().max()))  # type: ignore

    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _, args, output, name=name: (
                note((name, "input"), args),
                note((name, "output"), output),
            )[0]
        )
    model(windows, use_cache=False)
    return found


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma2"])
def test_ranges_are_those_of_transformers_own_models(
    family: str, make_model: Callable[..., Path], text_file: Path, tmp_path: Path
) -> None:
    path = make_model(family)
    model = open_model(str(path))
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(path), 48, 4)
    search_model(model, windows, [SCHEME], tmp_path / "awq")
    recipe = make_recipe("", model.family, model.blocks, 4)
    write_checkpoint(tmp_path / "out", model, recipe, tmp_path / "awq", {4: SCHEME})
    sweep, log = Sweep(4, (4,), frozenset(), tmp_path / "awq", ()), RangeLog(len(windows))
    run_sweep(model, windows, sweep, ranges=log)
    rows, found = join_ranges([(range(len(windows)), log.state())])
    assert found is not None
    for name, directory in (("reference", path), ("uniform", tmp_path / "out")):
        expected = watch_whole(directory, windows)
        mine = [row for row in rows if row["model"] == name]
        linears = [n for n, m in model.shell.named_modules() if isinstance(m, nn.Linear)]
        seen = set()
        for row in mine:
            inside = "" if row["block"] is None else model.prefix(row["block"])
            full = ".".join(part for part in (inside, row["site"]) if part)
            seen.add((full, row["part"]))
            if row["site"] != "embeddings":
                assert row["largest"] == pytest.approx(expected[full, row["part"]], rel=1e-3), row
        assert {(linear, part) for linear in linears for part in ("input", "output")} <= seen
        assert found[name]["largest"] == max(row["largest"] for row in mine)
    # A folded scale moves what a linear is served with: else the two bases would not differ.
    of = {(r["block"], r["site"], r["part"], r["model"]): r["largest"] for r in rows}
    first = model.family.units[0].linears[0]
    moved = of[0, first, "input", "uniform"] / of[0, first, "input", "reference"]
    assert abs(moved - 1) > 0.01


def test_chunks_are_merged_by_the_largest(
    make_model: Callable[..., Path], text_file: Path, tmp_path: Path
) -> None:
    model = open_model(str(make_model("llama")))
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(model.path), 48, 5)
    search_model(model, windows, [SCHEME], tmp_path)
    sweep = Sweep(4, (4,), frozenset(), tmp_path, ())
    states = []
    for part in (windows, windows[:2], windows[2:]):
        log = RangeLog(len(part))
        run_sweep(model, part, sweep, ranges=log)
        states.append(log.state())
    rows, found = join_ranges([(range(5), states[0])])
    merged, joined = join_ranges([([0, 1], states[1]), ([2, 3, 4], states[2])])
    assert [r["site"] for r in rows] == [r["site"] for r in merged]
    assert [r["largest"] for r in rows] == pytest.approx([r["largest"] for r in merged], rel=1e-5)
    assert found is not None
    assert joined is not None
    for name, place in found.items():
        assert {k: v for k, v in place.items() if k != "largest"} == {
            k: v for k, v in joined[name].items() if k != "largest"
        }
    # A chunk that an earlier version left does not make the rest pass for all.
    assert join_ranges([([0, 1], states[1]), ([2], {})]) == ([], None)


def test_experts_are_watched_together_and_windows_apart() -> None:
    log = RangeLog(3)
    log.note(1, "uniform", slice(0, 2), {("mlp.experts.3.up", "input"): torch.tensor([5.0])})
    log.note(1, "uniform", slice(0, 2), {("mlp.experts.7.up", "input"): torch.tensor([9.0])})
    log.note(1, "uniform", slice(2, 3), {("mlp", "input"): torch.tensor([7.0])})
    log.note(1, "uniform", slice(0, 2), {("mlp", "input"): torch.tensor([1.0, 8.0])})
    rows, found = join_ranges([(range(3), log.state())])
    assert [(row["site"], row["largest"]) for row in rows] == [("mlp.experts.up", 9), ("mlp", 8)]
    assert found is not None
    # Which window an expert's token is of is not known.
    assert found["uniform"]["window"] == 1
    assert Largest(**found["uniform"]).say_where() == "the input of mlp.experts.up in block 1"


def test_what_a_scale_is_folded_into_is_seen_as_it_is_served() -> None:
    linear = nn.Linear(2, 1, bias=False)
    linear.weight.data.fill_(1.0)
    watch = RangeWatch(nn.ModuleDict({"up": linear}))
    linear(torch.tensor([[[-8.0, 2.0]]]))
    found = watch.take({"up": (torch.tensor([16.0, 0.5]), torch.tensor([2.0]))})
    assert {key: values.tolist() for key, values in found.items()} == {
        ("up", "input"): [4.0],
        ("up", "output"): [3.0],
    }
    assert watch.take({}) == {}
    watch.remove()
    linear(torch.ones(1, 1, 2))
    assert watch.take({}) == {}
