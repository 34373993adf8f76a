"""Mixtures of experts: the same function as transformers', searched expert by expert, and written
by the servers' rules."""

import io
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from awqscope.app.terminal.run import show_run
from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.scores import read_scores
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.diagnose.sweep.estimator import estimate_units, window_seed
from awqscope.diagnose.sweep.swappable import read_swappable
from awqscope.mixedprec.awq.choices import ScaleChoice, load_search, search_path
from awqscope.mixedprec.awq.experts import FEWEST_TOKENS
from awqscope.mixedprec.awq.realise import scale_block
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.checkpoints.writer import realise_block, write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import FAMILIES, fit_family
from awqscope.mixedprec.models.forward import enter_blocks, run_block
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.recipes.emitters import EMITTERS, emit
from awqscope.mixedprec.recipes.recipe import load_recipe, make_recipe
from awqscope.mixedprec.scheme import Scheme
from tests.help.tiny import MIXTURES, tiny_config

MakeModel = Callable[..., Path]
Searched = tuple[SourceModel, Path, Tensor]

SCHEMES = {4: Scheme(4, 64, False), 8: Scheme(8, 64, True)}
COUNTS = {"mixtral": "num_local_experts", "qwen3_moe": "num_experts", "olmoe": "num_experts"}


def copy_model(path: Path, out: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    """A model with its tensors changed."""
    shutil.copytree(path, out)
    tensors = load_file(out / "model.safetensors")
    change(tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / "model.safetensors")
    return out


def leave_one_idle(tensors: dict[str, Tensor]) -> None:
    """Routers of five experts, of which no token chooses the last: their scores are a, −a, a / 2,
    −a / 2 and 0."""
    for name in [name for name in tensors if name.endswith(".gate.weight")]:
        rows = torch.tensor([1.0, -1.0, 0.5, -0.5, 0.0])
        tensors[name] = (rows[:, None] * tensors[name][:1].float()).to(tensors[name].dtype)


@pytest.fixture(scope="module", params=["mixtral", "qwen3_moe"])
def idle(
    request: pytest.FixtureRequest, make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A mixture of five experts, of which no token chooses the last."""
    path = make_model(request.param, **{COUNTS[request.param]: 5})
    return copy_model(path, tmp_path_factory.mktemp("idle") / request.param, leave_one_idle)


@pytest.fixture(scope="module")
def searched(idle: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """That model with its searches at 4 and 8 bits, and windows to run it on."""
    model = open_model(str(idle))
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(idle), 48, 6)
    folder = tmp_path_factory.mktemp("awq")
    search_model(model, windows, list(SCHEMES.values()), folder)
    return model, folder, windows


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_of_their_own_are_transformers_experts(
    family: str, make_model: MakeModel, tmp_path: Path
) -> None:
    """Block by block, from both layouts on disk: an expert a tensor, and all experts stacked."""
    path = make_model(family)
    whole = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    def stack(tensors: dict[str, Tensor]) -> None:
        for name in [n for n in tensors if re.search(r"\.experts\.\d+\.", n)]:
            del tensors[name]
        for name, parameter in whole.named_parameters():
            if ".experts." in name:
                tensors[name] = parameter.half()

    stacked = copy_model(path, tmp_path / "stacked", stack)
    windows = torch.randint(0, 384, (3, 48), generator=torch.Generator().manual_seed(0))
    for source in (path, stacked):
        model = open_model(str(source))
        stream, all_kwargs = enter_blocks(model, windows)
        hidden = stream.read(slice(None))
        for number in range(model.blocks):
            kwargs, theirs = all_kwargs[number], whole.model.layers[number]
            with torch.no_grad():
                expected = run_block(theirs, hidden, kwargs)
                hidden = run_block(model.read_block(number), hidden, kwargs)
            torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match=r"experts\.3.* has shape \[128, 128\]|has no tensor"):
        damaged = copy_model(path, tmp_path / "damaged", lambda t: _drop_expert(t))
        open_model(str(damaged))


def _drop_expert(tensors: dict[str, Tensor]) -> None:
    for name in [n for n in tensors if ".experts.3." in n]:
        del tensors[name]


@torch.no_grad()
def test_scaling_leaves_the_routing_as_it_is(searched: Searched) -> None:
    model, folder, windows = searched
    layout = model.family.experts
    assert layout is not None
    stream, all_kwargs = enter_blocks(model, windows)
    hidden = stream.read(slice(None))
    block = model.read_block(0)
    choices = load_search(search_path(folder, 0, 4)).scales
    shared = next(c for c in choices if c.group.previous == "post_attention_layernorm")
    assert shared.ratio > 0 and (shared.scales - 1).abs().max() > 0.1

    def route(of: torch.nn.Module) -> Tensor:
        chosen = []
        router = of.get_submodule(f"{layout.module}.gate")
        handle = router.register_forward_hook(lambda _, args, out: chosen.append(out))
        run_block(of, hidden, all_kwargs[0])
        handle.remove()
        return chosen[0][0]

    scores = route(block)
    torch.testing.assert_close(route(scale_block(block, choices)), scores, rtol=1e-3, atol=1e-4)
    # As autoawq scales, without the router: another routing altogether.
    bare = scale_block(block, choices)
    router = bare.get_submodule(f"{layout.module}.gate")
    router.weight.data = block.get_submodule(f"{layout.module}.gate").weight.data
    assert (route(bare) - scores).abs().max() > 0.1


def test_an_expert_without_tokens_is_named_and_rounded(searched: Searched) -> None:
    model, folder, _ = searched
    layout = model.family.experts
    assert layout is not None
    last = [f"{layout.expert(4)}.{name}" for name in (layout.gate, layout.up, layout.down)]
    recipe = make_recipe("", model.family, model.blocks, 4)
    for number in range(model.blocks):
        for bits in (4, 8):
            search = load_search(search_path(folder, number, bits))
            assert search.uncalibrated == (layout.expert(4),)
            assert not set(last) & set(search.clips)
            assert search.choice_for(last[2]) is None
            assert search.choice_for(f"{layout.expert(0)}.{layout.down}") is not None
        realised = realise_block(model, recipe, folder, number, torch.float16)
        block = model.read_block(number)
        for name in last:
            linear, weight = realised.linears[name], block.get_submodule(name).weight
            assert linear.quantized is not None and linear.quantized.scheme.symmetric
            step = linear.quantized.scales.float().repeat_interleave(64, dim=1)
            scaled = weight * linear.inputs
            # Rounded to nearest in its group's steps, nothing clipped but at the last code.
            assert ((linear.served() - scaled).abs() <= 0.5001 * step + 1e-6).float().mean() > 0.98
            assert torch.equal(linear.outputs, torch.ones(len(weight)))


@pytest.mark.parametrize(("share", "holds"), [(1 / 48, True), (0.5, False)])
def test_a_tie_of_two_experts_may_break_the_other_way(
    share: float,
    holds: bool,
    idle: Path,
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some tokens of the scaled block go to the experts with the next numbers."""
    model = open_model(str(idle))
    layout = model.family.experts
    assert layout is not None

    def reroute(_: torch.nn.Module, args: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        hidden, chosen, weights = args
        moved = chosen.clone()
        count = round(share * len(chosen))
        moved[:count] = (chosen[:count] + 1) % 4
        return hidden, moved, weights

    def scale(block: torch.nn.Module, choices: Sequence[ScaleChoice]) -> torch.nn.Module:
        scaled = scale_block(block, choices)
        experts = scaled.get_submodule(f"{layout.module}.experts")
        experts.register_forward_pre_hook(reroute)
        return scaled

    monkeypatch.setattr("awqscope.mixedprec.awq.search.scale_block", scale)
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(idle), 48, 2)
    if holds:
        search_model(model, windows, [SCHEMES[4]], tmp_path)
    else:
        with pytest.raises(RuntimeError, match=r"change the experts of model\.layers\.0"):
            search_model(model, windows, [SCHEMES[4]], tmp_path)


def test_few_tokens_are_too_few(idle: Path, tmp_path: Path) -> None:
    model = open_model(str(idle))
    windows = torch.randint(0, 384, (1, FEWEST_TOKENS - 1))
    search_model(model, windows, [SCHEMES[4]], tmp_path)
    found = load_search(search_path(tmp_path, 0, 4)).uncalibrated
    assert len(found) == 5


def test_the_checkpoint_keeps_the_rules(searched: Searched, tmp_path: Path) -> None:
    """One symmetric scheme for all experts of a block, found once by every name that a loader looks
    up; routers are left alone."""
    model, folder, _ = searched
    layout = model.family.experts
    assert layout is not None
    changed = {"0.qkv": 8, "1.experts": 8, "1.o": 16}
    recipe = make_recipe("", model.family, model.blocks, 4, changed=changed)
    write_checkpoint(tmp_path / "out", model, recipe, folder, SCHEMES)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    groups = config["config_groups"].values()

    def find(name: str) -> list[dict[str, object]]:
        matched = [
            g["weights"]
            for g in groups
            if any(re.match(t.removeprefix("re:"), name) for t in g["targets"])
        ]
        return matched + [
            {"ignored": True} for t in config["ignore"] if re.match(t.removeprefix("re:"), name)
        ]

    for block, bits in ((0, 4), (1, 8)):
        start = f"model.layers.{block}.{layout.module}"
        # vLLM asks for expert 0 by these names, whatever the checkpoint calls its linears.
        asked = [f"{start}.experts.0.{name}" for name in ("gate_proj", "up_proj", "down_proj")]
        stored = [n for n in recipe.linear_widths() if n.startswith(f"{start}.experts.")]
        assert len(stored) == 15
        for name in (*asked, *stored):
            (weights,) = find(name)
            assert (weights["num_bits"], weights["symmetric"]) == (bits, True), name
        assert find(f"{start}.gate") == [{"ignored": True}]
    (attention,) = find("model.layers.1.self_attn.qkv_proj")
    assert (attention["num_bits"], attention["symmetric"]) == (4, False)
    names = set(load_file(tmp_path / "out" / "model.safetensors"))
    assert f"model.layers.0.{layout.module}.gate.weight" in names
    assert not [n for n in names if ".experts." in n and n.endswith("zero_point")]
    with pytest.raises(InputError, match="experts are symmetric"):
        uniform = make_recipe("", model.family, model.blocks, 4)
        write_checkpoint(tmp_path / "gemm", model, uniform, folder, SCHEMES, fmt="awq")


def test_the_router_is_swapped_with_what_it_reads(searched: Searched) -> None:
    """What the simulation says of a scaled router, rounded to 16 bits, is the checkpoint's."""
    model, folder, _ = searched
    layout = model.family.experts
    assert layout is not None
    swappable, name = read_swappable(model, 0, folder, (4,)), f"{layout.module}.gate.weight"
    linears = [linear for kind in model.family.units for linear in kind.linears]
    kept = dict.fromkeys(linears, 16)
    weights = swappable.weights(dict.fromkeys(linears, 4))
    router = model.read_block(0).get_parameter(name)
    assert 0 < (weights[name] - router).abs().max() < 1e-3 * router.abs().max()
    assert name not in swappable.weights(kept | {"self_attn.q_proj": 4})
    assert name not in {found for found, _, _ in swappable.pairs(weights)}


def test_estimates_equal_one_backward_pass(searched: Searched) -> None:
    """The same sampled tokens, one autograd graph over the whole model, the formula spelt out."""
    model, folder, windows = searched
    windows = windows[:1]
    found = estimate_units(model, windows, folder, (4,), seed=5)
    whole = model.read_whole()
    whole.requires_grad_(True)
    caught: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in whole.named_modules():
        if ".experts." in name and isinstance(module, torch.nn.Linear):
            module.register_forward_hook(
                lambda _, args, output, name=name: caught.__setitem__(name, (args[0], output))
            )
    log_p = whole(windows, use_cache=False).logits[0, :-1].log_softmax(-1)
    generator = torch.Generator().manual_seed(window_seed(5, 0, 0))
    sampled = torch.multinomial(log_p.detach().exp(), 1, generator=generator)
    outputs = [output for _, output in caught.values()]
    gradients = torch.autograd.grad(log_p.gather(-1, sampled).sum(), outputs, allow_unused=True)
    kind = model.family.kind_of(f"{model.family.experts.expert(0)}.{model.family.experts.up}")
    for number in range(model.blocks):
        prefix, scored = model.prefix(number), windows.shape[1] - 1
        effective = read_swappable(model, number, folder, (4,)).weights(
            {linear: 4 for each in model.family.units for linear in each.linears}
        )
        experts = whole.get_submodule(f"{prefix}.{model.family.experts.module}.experts")
        total = torch.zeros(windows.shape[1])
        for linear in kind.linears:
            full = f"{prefix}.{linear}"
            if full not in caught:
                assert found.linears[full, 4].item() == 0
                continue
            gradient = dict(zip(caught, gradients, strict=True))[full]
            delta = effective[f"{linear}.weight"] - whole.get_submodule(full).weight.detach()
            product = (gradient * (caught[full][0].detach() @ delta.T)).sum(-1)
            alone = 0.5 * product.square().sum() / scored
            assert found.linears[full, 4].item() == pytest.approx(alone.item(), rel=1e-3)
            total.index_add_(0, experts.rows[int(linear.split(".")[-2])], product)
        expected = 0.5 * total.square().sum() / scored
        assert found.units[f"{number}.experts", 4].item() == pytest.approx(expected.item(), 1e-3)


@pytest.fixture(scope="module")
def finished(
    make_model: MakeModel, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunDirectory:
    """A whole run of a mixture with an idle expert; its blocks' experts differ in width."""
    folder = tmp_path_factory.mktemp("run")
    path = copy_model(
        make_model("mixtral", num_local_experts=5), folder / "mixtral", leave_one_idle
    )
    spec = RunSpec(
        model=str(path),
        calib=str(text_file),
        valid=str(text_file),
        group_size=64,
        seq_len=48,
        windows=4,
        calib_windows=6,
        calib_seq_len=48,
        top_k=1,
        whole_blocks=True,
        verify_units=2,
    )
    return run_pipeline(spec, folder / "run", lambda *_: None)


def test_a_whole_run_names_what_it_could_not_calibrate(finished: RunDirectory) -> None:
    record = finished.read().to_json()
    idle = ["block_sparse_moe.experts.4"]
    assert record["uncalibrated"] == {"0": idle, "1": idle}
    assert record["source"]["units"] == ["qkv", "o", "experts"]
    assert {e.bits for e in load_recipe(finished.path / "recipe.json").units} == {4, 8}
    assert record["headline"]["proved"] is True
    console = Console(record=True, width=200, file=io.StringIO())
    show_run(finished, console)
    said = "2 experts saw too few calibration tokens and are rounded to nearest: 4 of block 0; 4 of"
    assert said in console.export_text()
    assert said in (finished.checkpoint / "README.md").read_text()


def test_experts_stay_together_where_fused_units_are_split(finished: RunDirectory) -> None:
    names = [unit.name for unit in read_scores(finished.path, split_fused=True).units]
    assert "0.self_attn.q_proj" in names and "0.experts" in names
    assert not [name for name in names if "experts." in name]


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("target", EMITTERS)
def test_tools_that_name_experts_their_own_way_get_none(target: str, name: str) -> None:
    family = fit_family(FAMILIES[name], tiny_config(name), "m")
    recipe = make_recipe("m", family, 1, 4)
    with pytest.raises(InputError, match=r"unit 0\.experts is a mixture of experts"):
        emit(target, recipe, {4: Scheme(4, 64, True)}, name)
