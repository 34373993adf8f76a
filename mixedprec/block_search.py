"""The AWQ search streamed over a model: a block is read, searched at every wanted width, and gone.

autoawq judges a block on the inputs that the *unquantized* blocks before it give, so blocks do not
depend on each other's results: a stopped search goes on at the first block without a file.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mixedprec.autoawq import is_clipped
from mixedprec.errors import InputError
from mixedprec.expert_search import search_experts
from mixedprec.families import Family
from mixedprec.family import ScaleGroup
from mixedprec.model import (
    SourceModel,
    advance,
    enter_blocks,
    fit_kwargs,
    get_linear,
    is_finite,
    run_block,
)
from mixedprec.realise import norm_offset
from mixedprec.scale_groups import find_scale_groups
from mixedprec.scheme import Scheme
from mixedprec.search import (
    CLIP_TOKENS,
    RATIOS,
    BlockSearch,
    ScaleChoice,
    SecondMoment,
    candidate_scales,
    choose_clip,
    judge_jointly,
    lone_losses,
    weight_means,
)
from mixedprec.searches import is_complete, save_search, search_path

SCALING_TOLERANCE = 1e-3


@dataclass(eq=False)
class _Site:
    """What is kept of the input that the linears of one unit share, over all calibration tokens.

    lone: whether a lone linear is judged on it, which takes its second moment; otherwise the inputs
    themselves are kept, for a module to be run on.
    """

    tokens: int
    lone: bool
    seen: int = 0

    def __post_init__(self) -> None:
        self.absolute = torch.zeros(())
        self.gram: Tensor | None = None
        self.kept: list[Tensor] = []
        self.sample: list[Tensor] = []

    def add(self, inputs: Tensor) -> None:
        """Take in a batch of inputs [n, length, K]."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        self.absolute = self.absolute + flat.abs().sum(0)
        step = max(1, self.tokens // CLIP_TOKENS)
        self.sample.append(flat[-self.seen % step :: step].clone())
        self.seen += len(flat)
        if not self.lone or self.tokens < flat.shape[1]:
            self.kept.append(inputs)
        else:
            gram = flat.T @ flat
            self.gram = gram if self.gram is None else self.gram.add_(gram)

    def close(self) -> None:
        """All tokens have been seen: join what was kept."""
        self.inputs = torch.cat(self.kept) if self.kept else torch.empty(0)
        self.clip_inputs = torch.cat(self.sample)
        self.kept, self.sample = [], []

    def second_moment(self) -> SecondMoment:
        """Of all tokens, for a lone linear."""
        if self.gram is not None:
            return SecondMoment(self.gram, True)
        return SecondMoment(self.inputs.flatten(0, -2), False)


def scale_block(block: nn.Module, choices: Sequence[ScaleChoice]) -> nn.Module:
    """A float copy of `block` with AWQ's scales folded in and nothing quantized: the same function
    in exact arithmetic."""
    scaled = copy.deepcopy(block)
    for choice in choices:
        scales = choice.scales
        previous: Any = scaled.get_submodule(choice.group.previous)
        offset = norm_offset(previous)
        if isinstance(previous, nn.Linear):
            previous.weight.data[-len(scales) :] /= scales[:, None]
        else:
            previous.weight.data = (previous.weight.data + offset) / scales - offset
        if getattr(previous, "bias", None) is not None:
            previous.bias.data[-len(scales) :] /= scales
        for name in (*choice.group.linears, *choice.group.compensated):
            reader: Any = scaled.get_submodule(name)
            reader.weight.data *= scales
    return scaled


def _check_scaling(
    name: str, block: nn.Module, search: BlockSearch, hidden: Tensor, kwargs: dict[str, Any]
) -> None:
    """Assert that the scales alone leave the block's output unchanged (autoawq's own do not, on
    CPU or for fused projections with grouped heads)."""
    expected = run_block(block, hidden, kwargs)
    got = run_block(scale_block(block, search.scales), hidden, kwargs)
    change = expected - hidden
    error = ((got - expected).norm() / change.norm().clamp(min=1e-12)).item()
    if not error < SCALING_TOLERANCE:
        raise AssertionError(f"AWQ scales change the output of {name} by {error:.2e} of its size")


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _runner(
    block: nn.Module, group: ScaleGroup, kwargs: dict[str, Any]
) -> Callable[[Tensor], Tensor]:
    """The forward of the module that `group` is judged through, on a batch of its inputs."""
    assert group.inspect is not None
    module = block.get_submodule(group.inspect)
    named = inspect.signature(module.forward).parameters
    passed = {k: v for k, v in kwargs.items() if k in named} if group.mixes_tokens else {}

    def run(batch: Tensor) -> Tensor:
        return _first(module(batch, **fit_kwargs(passed, len(batch))))

    return run


def _search_scheme(
    block: nn.Module,
    family: Family,
    groups: Sequence[ScaleGroup],
    sites: dict[str, _Site],
    references: dict[str, Tensor],
    kwargs: dict[str, Any],
    scheme: Scheme,
) -> BlockSearch:
    """The choices for one block at one scheme, from what its sites saw."""
    clips: dict[str, Tensor] = {}
    search = BlockSearch(scheme, (), clips, family.symmetric_linears())
    choices = []
    for group in groups:
        site = _site_of(group, sites)
        if site is None:
            continue
        linears = [get_linear(block, name) for name in group.linears]
        weights = [linear.weight.data for linear in linears]
        own = search.scheme_of(group.linears[0])
        candidates = candidate_scales(site.absolute / site.seen, weight_means(weights, own))
        if group.inspect is None:
            losses = lone_losses(weights[0], site.second_moment(), candidates, own)
            best = losses.index(min(losses))
        else:
            best = judge_jointly(
                linears,
                site.inputs,
                references[group.inspect],
                _runner(block, group, kwargs),
                candidates,
                own,
                mixes_tokens=group.mixes_tokens,
            )
        choices.append(ScaleChoice(group, best / RATIOS, candidates[best].clone()))
    search = replace(search, scales=tuple(choices))
    for kind in family.units:
        for name in kind.linears:
            if name in sites and is_clipped(name):
                weight = get_linear(block, name).weight.data
                clips[name] = choose_clip(name, weight, sites[name].clip_inputs, search)
    return search


def _site_of(group: ScaleGroup, sites: dict[str, _Site]) -> _Site | None:
    """Where the input of a group was seen: at its linears, or at the mixture that hands it on to
    them; None for what a single expert is searched for."""
    return sites.get(group.linears[0]) or sites.get(group.inspect or "")


@torch.no_grad()
def search_block(
    name: str,
    block: nn.Module,
    groups: Sequence[ScaleGroup],
    family: Family,
    hidden: Tensor,
    kwargs: dict[str, Any],
    schemes: Sequence[Scheme],
) -> list[BlockSearch]:
    """Search one block at each scheme, and push the stream through it.

    name: for messages. block: float32 weights. hidden: the calibration stream [n, length, d] before
    the block, which becomes the one after it. InputError where that is not finite.
    """
    jointly = {name for group in groups if group.inspect is not None for name in group.linears}
    tokens = hidden.shape[0] * hidden.shape[1]
    sites: dict[str, _Site] = {}
    handles = []
    for unit in family.units:
        site = _Site(tokens, lone=not jointly & set(unit.linears))
        sites |= dict.fromkeys((unit.site,) if unit.site else unit.linears, site)
        first = block.get_submodule(unit.observed)
        handles.append(
            first.register_forward_pre_hook(lambda _, args, site=site: site.add(args[0]))
        )
    kept: dict[str, list[Tensor]] = {}
    for inspected in {group.inspect for group in groups if group.inspect}:
        outputs = kept.setdefault(inspected, [])
        handles.append(
            block.get_submodule(inspected).register_forward_hook(
                lambda _, args, output, outputs=outputs: outputs.append(_first(output))
            )
        )
    advance(block, hidden, kwargs)
    for handle in handles:
        handle.remove()
    check_finite(hidden, f"the output of {name}")
    for site in dict.fromkeys(sites.values()):
        site.close()
    references = {key: torch.cat(outputs) for key, outputs in kept.items()}
    for group in groups:
        if group.inspect == "":
            # The whole block, judged as autoawq does: given the unit's input for its own.
            run, inputs = _runner(block, group, kwargs), sites[group.linears[0]].inputs
            references[""] = torch.cat([run(batch) for batch in inputs.split(1)])
    searches = [
        _search_scheme(block, family, groups, sites, references, kwargs, scheme)
        for scheme in schemes
    ]
    if family.experts is None:
        return searches
    inputs = sites[family.experts.module].inputs
    return search_experts(block, family.experts, groups, inputs, searches)


@torch.no_grad()
def search_model(
    model: SourceModel,
    windows: Tensor,
    schemes: Sequence[Scheme],
    folder: Path,
    on_block: Callable[[int], None] = lambda block: None,
) -> None:
    """Search every block of `model` at each scheme, one file a block and width in `folder`.

    windows: calibration token ids [n, length]. Blocks whose files are there are not searched again.
    `on_block` is told the number of blocks done. InputError for group sizes that do not divide,
    and for activations that are not finite.
    """
    check_schemes(model, schemes)
    groups = find_scale_groups(model.family, model.config.model_type, model.block_shell(0))
    missing = [
        block
        for block in range(model.blocks)
        if not all(is_complete(search_path(folder, block, s.bits)) for s in schemes)
    ]
    if not missing:
        return
    hidden, all_kwargs = enter_blocks(model, windows)
    for number in range(missing[-1] + 1):
        block = model.read_block(number)
        kwargs = all_kwargs[number]
        if number in missing:
            name = model.prefix(number)
            first = hidden[:1].clone()
            searches = search_block(name, block, groups, model.family, hidden, kwargs, schemes)
            for search in searches:
                _check_scaling(name, block, search, first, kwargs)
                save_search(search_path(folder, number, search.scheme.bits), search)
        else:
            advance(block, hidden, kwargs)
        del block  # before the next is read: one at a time
        on_block(number + 1)


def check_schemes(model: SourceModel, schemes: Sequence[Scheme]) -> None:
    """Raise InputError unless every scheme's groups tile every linear's inputs."""
    for kind in model.family.units:
        for name in kind.linears:
            columns = get_linear(model.block_shell(0), name).in_features
            for scheme in schemes:
                scheme.check_divides(columns, name)


def check_finite(values: Tensor, name: str) -> None:
    """Raise InputError naming `name` unless every activation is finite."""
    if not is_finite(values):
        raise InputError(
            f"{name} holds NaN or infinity on this text",
            "the model overflows in itself: check the checkpoint, or try another calibration text",
        )
