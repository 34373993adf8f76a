"""The AWQ search streamed over a model: a block is read, searched at every wanted width, and
dropped.

autoawq judges a block on the inputs that the *unquantized* blocks before it give, so blocks do not
depend on each other's results: a search that was stopped continues at the first block without a
file.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.mixedprec.awq.autoawq import is_clipped
from awqscope.mixedprec.awq.choices import (
    BlockSearch,
    ScaleChoice,
    is_complete,
    save_search,
    search_path,
)
from awqscope.mixedprec.awq.clipping import choose_clip
from awqscope.mixedprec.awq.experts import search_experts
from awqscope.mixedprec.awq.joint import judge_jointly
from awqscope.mixedprec.awq.losses import (
    FINE_RATIOS,
    RATIOS,
    choose_lone,
    list_scalings,
    weight_means,
)
from awqscope.mixedprec.awq.realise import scale_block
from awqscope.mixedprec.awq.scale_groups import find_scale_groups
from awqscope.mixedprec.awq.sites import Outputs, Site
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.experts import same_choices
from awqscope.mixedprec.families.family import ExpertLayout, ScaleGroup
from awqscope.mixedprec.families.table import Family
from awqscope.mixedprec.models.forward import (
    advance,
    enter_blocks,
    fit_kwargs,
    get_linear,
    move,
    run_block,
)
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import (
    CPU,
    Stream,
    StreamSpace,
    as_stream,
    in_memory,
    list_batches,
)
from awqscope.mixedprec.models.weights import is_finite
from awqscope.mixedprec.scheme import ENOUGH_TOKENS, Scheme

SCALING_TOLERANCE = 1e-3
# The share of a mixture's tokens that must go to the same experts, scaled or not.
MOST_CHOICES = 0.9
# The width from which on the scales of a smaller one are as good.
ALIKE = 8
# Of 4,096 tokens at once an expert of 128, eight a token, sees 256.
MIXTURE_BATCHES = 16


def _check_scaling(
    name: str,
    block: nn.Module,
    search: BlockSearch,
    hidden: Tensor,
    kwargs: dict[str, Any],
    layout: ExpertLayout | None = None,
) -> None:
    """Assert that the scales alone leave the block's output unchanged (autoawq's own do not, on
    CPU or for fused projections with grouped heads).

    layout: of a block with experts. Rounding may break a tie between two of them the other way:
    tokens that go to others than before are left out, if they are few."""
    scaled = scale_block(block, search.scales)
    expected = run_block(block, hidden, kwargs)
    error, change = run_block(scaled, hidden, kwargs) - expected, expected - hidden
    if layout is not None:
        kept = same_choices(block, scaled, layout).view(hidden.shape[:-1])
        if kept.float().mean() <= MOST_CHOICES:
            raise RuntimeError(f"AWQ scales change the experts of {name}")
        error, change = error[kept], change[kept]
    relative = (error.norm() / change.norm().clamp(min=1e-12)).item()
    if not relative < SCALING_TOLERANCE:
        raise AssertionError(
            f"AWQ scales change the output of {name} by {relative:.2e} of its size"
        )


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
    sites: dict[str, Site],
    references: dict[ScaleGroup, Stream],
    kwargs: dict[str, Any],
    scheme: Scheme,
    exact: bool,
    found: BlockSearch | None = None,
) -> BlockSearch:
    """The choices for one block at one scheme, from what its sites saw. found: the search at
    another scheme whose scales are taken."""
    clips: dict[str, Tensor] = {}
    search = BlockSearch(scheme, (), clips, family.symmetric_linears())
    choices = [] if found is None else list(found.scales)
    for group in groups:
        site = _site_of(group, sites)
        if site is None or found is not None:
            continue
        linears = [get_linear(block, name) for name in group.linears]
        weights = [linear.weight.data for linear in linears]
        own = search.scheme_of(group.linears[0])
        count = RATIOS if exact else FINE_RATIOS
        scalings = list_scalings(site.mean_size(), weight_means(weights, own), count)
        if group.inspect is None:
            best = choose_lone(weights[0], site.second_moment(), scalings, own, exact=exact)
        else:
            best = judge_jointly(
                linears,
                site.inputs(),
                references[group],
                _runner(block, group, kwargs),
                scalings,
                own,
                mixes_tokens=group.mixes_tokens,
                batches=MIXTURE_BATCHES if group.compensated else 1,
                exact=exact,
            )
        choices.append(ScaleChoice(group, best / count, scalings[best].clone()))
    search = replace(search, scales=tuple(choices))
    for kind in family.units:
        for name in kind.linears:
            if name in sites and is_clipped(name):
                weight = get_linear(block, name).weight.data
                clips[name] = choose_clip(name, weight, sites[name].clip_inputs(), search)
    return search


def _site_of(group: ScaleGroup, sites: dict[str, Site]) -> Site | None:
    """Where the input of a group was seen: at its linears, or at the mixture that hands it on to
    them; None for what a single expert is searched for."""
    return sites.get(group.linears[0]) or sites.get(group.inspect or "")


@torch.no_grad()
def search_block(
    name: str,
    block: nn.Module,
    groups: Sequence[ScaleGroup],
    family: Family,
    hidden: Stream | Tensor,
    kwargs: dict[str, Any],
    schemes: Sequence[Scheme],
    *,
    exact: bool = True,
    device: torch.device = CPU,
    space: StreamSpace | None = None,
) -> list[BlockSearch]:
    """Search one block at each scheme, and push the stream through it.

    name: for messages. block: float32 weights, moved to `device`. hidden: the calibration stream
    [n, length, d] before the block, which becomes the one after it. exact: whether the choices are
    autoawq's own; otherwise they are about as good (`joint.py`), and from ALIKE bits on the scales
    are those of the first scheme, which cost nothing there that can be measured. space: where the
    inputs and outputs that linears are judged on are kept; None for memory. The results are on the
    CPU. InputError where the stream is not finite.
    """
    block, kwargs = block.to(device), move(kwargs, device)
    hidden, space = as_stream(hidden), space or in_memory()
    windows, length, _ = hidden.shape
    jointly = {name for group in groups if group.inspect is not None for name in group.linears}
    sites: dict[str, Site] = {}
    handles = []
    for unit in family.units:
        site = Site(windows, length, not jointly & set(unit.linears), space)
        sites |= dict.fromkeys((unit.site,) if unit.site else unit.linears, site)
        first = block.get_submodule(unit.observed)
        handles.append(
            first.register_forward_pre_hook(lambda _, args, site=site: site.add(args[0]))
        )
    kept: dict[str, Outputs] = {}
    for inspected in {group.inspect for group in groups if group.inspect}:
        outputs = kept.setdefault(inspected, Outputs(windows, space))
        handles.append(
            block.get_submodule(inspected).register_forward_hook(
                lambda _, args, output, outputs=outputs: outputs.add(_first(output))
            )
        )
    advance(block, hidden, kwargs)
    for handle in handles:
        handle.remove()
    check_finite(hidden, f"the output of {name}")
    references: dict[ScaleGroup, Stream] = {}
    for group in groups:
        if group.inspect == "":
            # The whole block, judged as autoawq does: given the unit's input for its own.
            run, inputs = _runner(block, group, kwargs), sites[group.linears[0]].inputs()
            outputs = Outputs(windows, space)
            for part in list_batches(inputs):
                outputs.add(run(inputs.read(part).to(device)))
            references[group] = outputs.stream()
        elif group.inspect is not None:
            references[group] = kept[group.inspect].stream()
    searches: list[BlockSearch] = []
    for scheme in schemes:
        is_like = searches and scheme.bits >= ALIKE and not exact
        found = searches[0] if is_like else None
        searches.append(
            _search_scheme(block, family, groups, sites, references, kwargs, scheme, exact, found)
        )
    if family.experts is not None:
        inputs = sites[family.experts.module].inputs()
        searches = search_experts(block, family.experts, groups, inputs, searches)
    return [search.to(CPU) for search in searches]


@torch.no_grad()
def search_model(
    model: SourceModel,
    windows: Tensor,
    schemes: Sequence[Scheme],
    folder: Path,
    on_block: Callable[[int], None] = lambda block: None,
    *,
    exact: bool = True,
    device: torch.device = CPU,
    space: StreamSpace | None = None,
) -> None:
    """Search every block of `model` at each scheme, one file a block and width in `folder`.

    windows: calibration token ids [n, length]. Blocks whose files are there are not searched again.
    `on_block` is told the number of blocks done. exact: as `search_block` takes it. device: what
    computes. space: where streams are kept; None for memory. InputError for group sizes that do not
    divide, and for activations that are not finite.
    """
    check_schemes(model, schemes)
    missing = missing_blocks(model, schemes, folder)
    if not missing:
        return
    space = space or in_memory()
    hidden, all_kwargs = enter_blocks(model, windows, space)
    for number in range(missing[-1] + 1):
        kwargs = all_kwargs[number]
        if number in missing:
            search_from(
                model,
                number,
                hidden,
                kwargs,
                schemes,
                folder,
                exact=exact,
                device=device,
                space=space,
            )
        else:
            advance(model.read_block(number, device), hidden, kwargs)
        on_block(number + 1)


def take_enough(windows: Tensor) -> Tensor:
    """As many of the calibration windows [n, length], spread over all of them, as have
    ENOUGH_TOKENS."""
    count = max(1, ENOUGH_TOKENS // windows.shape[1])
    if count >= len(windows):
        return windows
    return windows[torch.arange(count) * len(windows) // count]


def missing_blocks(model: SourceModel, schemes: Sequence[Scheme], folder: Path) -> list[int]:
    """The blocks that are yet to be searched at one of the schemes, in order."""
    return [
        block
        for block in range(model.blocks)
        if not all(is_complete(search_path(folder, block, s.bits)) for s in schemes)
    ]


@torch.no_grad()
def search_from(
    model: SourceModel,
    number: int,
    hidden: Stream | Tensor,
    kwargs: dict[str, Any],
    schemes: Sequence[Scheme],
    folder: Path,
    *,
    exact: bool = True,
    device: torch.device = CPU,
    space: StreamSpace | None = None,
) -> None:
    """Search block `number` of `model` at each scheme, one file a width in `folder`.

    hidden: the calibration stream [n, length, d] before the block, which becomes the one after it.
    kwargs: what the block is called with beside it. exact: as `search_block` takes it. device: what
    computes. space: where the inputs
    and outputs that linears are judged on are kept; None for memory. InputError for activations
    that are not finite.
    """
    name, block = model.prefix(number), model.read_block(number, device)
    groups = find_scale_groups(model.family, model.config.model_type, model.block_shell(0))
    hidden, kwargs = as_stream(hidden), move(kwargs, device)
    first = hidden.read(slice(1)).to(device, copy=True)
    searches = search_block(
        name,
        block,
        groups,
        model.family,
        hidden,
        kwargs,
        schemes,
        exact=exact,
        device=device,
        space=space,
    )
    for search in searches:
        _check_scaling(name, block, search.to(device), first, kwargs, model.family.experts)
        save_search(search_path(folder, number, search.scheme.bits), search)


@torch.no_grad()
def stream_inputs(
    model: SourceModel,
    windows: Tensor,
    wanted: Sequence[int],
    *,
    device: torch.device = CPU,
    space: StreamSpace | None = None,
) -> Iterator[tuple[int, Stream, dict[str, Any]]]:
    """Each of the `wanted` blocks, in order, with what `search_from` takes: the calibration stream
    before it, which is this one's until the next is asked for, and its keyword arguments."""
    if not wanted:
        return
    hidden, all_kwargs = enter_blocks(model, windows, space)
    for number in range(wanted[-1] + 1):
        if number in wanted:
            yield number, hidden, all_kwargs[number]
        if number < wanted[-1]:
            advance(model.read_block(number, device), hidden, all_kwargs[number])


def list_columns(model: SourceModel) -> dict[str, int]:
    """How many inputs each linear of a block has, by its name in the block."""
    shell = model.block_shell(0)
    names = [name for kind in model.family.units for name in kind.linears]
    return {name: get_linear(shell, name).in_features for name in names}


def check_schemes(model: SourceModel, schemes: Sequence[Scheme]) -> None:
    """Raise InputError unless every scheme's groups tile every linear's inputs."""
    for name, columns in list_columns(model).items():
        for scheme in schemes:
            scheme.check_divides(columns, name)


def check_finite(values: Stream | Tensor, name: str) -> None:
    """Raise InputError naming `name` unless every activation is finite."""
    stream = as_stream(values)
    if not all(is_finite(stream.read(part)) for part in list_batches(stream)):
        raise InputError(
            f"{name} holds NaN or infinity on this text",
            "the model overflows in itself: check the checkpoint, or try another calibration text",
        )
