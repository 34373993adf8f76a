"""A recipe in other tools' dialects: widths chosen here, quantized there.

    emit("llm-compressor", recipe, {4: Scheme(4, 128, False), 8: Scheme(8, 128, True)}) -> text

| target | text | read by |
|---|---|---|
| llm-compressor | YAML | `oneshot(recipe=FILE)` |
| gptqmodel | JSON | `QuantizeConfig(**…)`, widths in `dynamic` |
| autoround | JSON | `AutoRound(model, tokenizer, **…)`, widths in `layer_config` |
| modelopt | YAML | `mtq.quantize(model, …, forward_loop)` |
| mlx-lm | JSON | `mlx_lm.convert`'s predicate; config.json's `quantization` |
| llama.cpp | shell script | `llama-quantize --tensor-type` |

A tool that takes a scheme (llm-compressor, GPTQModel, AutoRound) is given exactly the recipe's or
none: what it cannot hold is refused. A tool with formats of its own (ModelOpt, MLX, llama.cpp) is
given the widths, and its text says how the format differs. Families that a tool does not take are
in `coverage`, and refused. Only the units of the recipe are quantized; embeddings, head and norms
stay as they are. Nothing here imports torch, reads a model or touches the disk, and the same input
gives the same text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.family import EXPERTS
from awqscope.mixedprec.recipes.emitters import (
    autoround,
    gptqmodel,
    llama_cpp,
    llm_compressor,
    mlx_lm,
    modelopt,
)
from awqscope.mixedprec.recipes.emitters.coverage import (
    RELEASES,
    find_gap,
    find_shared,
    guess_family,
)
from awqscope.mixedprec.recipes.emitters.emitter import (
    Emitter,
    describe_scheme,
    quantized_widths,
)
from awqscope.mixedprec.recipes.emitters.selectors import check_selectors, find_split
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import FP16_BITS, LinearWidths, Scheme, Width, sort_widths

__all__ = ["EMITTERS", "Emitter", "check_family", "check_selectors", "emit"]

EMITTERS: dict[str, Emitter] = {
    module.EMITTER.name: module.EMITTER
    for module in (llm_compressor, gptqmodel, autoround, modelopt, mlx_lm, llama_cpp)
}


def emit(
    target: str, recipe: Recipe, schemes: Mapping[Width, Scheme], family: str | None = None
) -> str:
    """The recipe as text for `target` (a key of EMITTERS).

    schemes: by width, for every one of the recipe but 16. family: the `model_type` of the
    model; None takes it from the linears' names where only one family has such. InputError for an
    unknown target, a family that it does not take, a width without a scheme, a scheme that the
    target cannot hold, fused linears of different widths where the target's servers fuse, linears
    of one input that differ where the target cannot have it, a unit without linears, a linear named
    twice, a mixture of experts, and names that no selector can tell apart.
    """
    if target not in EMITTERS:
        raise InputError(f"unknown target {target!r}", f"choose from {', '.join(EMITTERS)}")
    emitter = EMITTERS[target]
    _check_names(recipe)
    _check_experts(recipe)
    family = family or guess_family(recipe.linear_widths())
    used = quantized_widths(recipe, schemes)
    check_family(target, family, used.values())
    _check_widths(emitter, recipe, schemes)
    _check_fused(emitter, recipe)
    _check_shared(emitter, recipe, used, family)
    return emitter.write(recipe, schemes, family)


def check_family(target: str, family: str | None, schemes: Iterable[Scheme]) -> None:
    """Raise InputError where `target` takes no models of `family`, naming targets that do and that
    hold the schemes."""
    gap = find_gap(target, family)
    if gap is not None:
        package, version = RELEASES[target]
        raise InputError(
            f"{target} takes no models of type {family}: {gap} (seen with {package} {version})",
            _suggest(_list_able(family, schemes)),
        )


def _check_names(recipe: Recipe) -> None:
    seen: set[str] = set()
    for entry in recipe.units:
        if not entry.linears:
            raise InputError(f"unit {entry.unit} of the recipe holds no linear", "list its linears")
        for name in entry.linears:
            if name in seen:
                raise InputError(f"the recipe names {name} twice", "give every linear one width")
            seen.add(name)


def _check_experts(recipe: Recipe) -> None:
    mixture = next((e.unit for e in recipe.units if e.unit.endswith(f".{EXPERTS}")), None)
    if mixture is not None:
        raise InputError(
            f"unit {mixture} is a mixture of experts, which every tool names its own way",
            "write a checkpoint instead: awqscope requantize",
        )


def _check_widths(emitter: Emitter, recipe: Recipe, schemes: Mapping[Width, Scheme]) -> None:
    quantized = [entry for entry in recipe.units if entry.width != FP16_BITS]
    if not quantized:
        raise InputError("the recipe keeps every unit at 16 bits", "there is nothing to emit")
    for entry in quantized:
        if entry.width not in schemes:
            raise InputError(
                f"unit {entry.unit} is at {entry.width} bits, for which no scheme is given",
                f"use {', '.join(map(str, sort_widths(schemes)))} or 16 bits",
            )
        scheme = schemes[entry.width]
        if scheme not in emitter.holds:
            able = [name for name, other in EMITTERS.items() if scheme in other.holds]
            near = replace(scheme, symmetric=True) in emitter.holds
            first = "make it symmetric, or " if near else ""
            raise InputError(
                f"{emitter.name} cannot hold unit {entry.unit} ({describe_scheme(scheme)})",
                first + (f"emit for {', '.join(able)}" if able else "choose another width"),
            )


def _check_fused(emitter: Emitter, recipe: Recipe) -> None:
    widths = recipe.linear_widths()
    split = find_split(widths) if emitter.fused_by else None
    if split:
        units = {name: entry.unit for entry in recipe.units for name in entry.linears}
        shown = " and ".join(f"{units[name]} ({widths[name]} bits)" for name in split)
        able = [name for name, other in EMITTERS.items() if not other.fused_by]
        raise InputError(
            f"{shown} differ, but {', '.join(emitter.fused_by)} fuse them into one linear",
            f"give them one width, or emit for {', '.join(able)}",
        )


def _check_shared(
    emitter: Emitter, recipe: Recipe, used: Mapping[Width, Scheme], family: str | None
) -> None:
    apart = _find_apart(emitter, recipe, used, family)
    if apart:
        units = {name: entry.unit for entry in recipe.units for name in entry.linears}
        able = [
            name
            for name in _list_able(family, used.values())
            if _find_apart(EMITTERS[name], recipe, used, family) is None
        ]
        raise InputError(
            f"{units[apart[0]]} and {units[apart[1]]} read one input, and {emitter.name} needs "
            f"such linears at one {emitter.alike}",
            f"give them one {emitter.alike}, or {_suggest(able)}",
        )


def _find_apart(
    emitter: Emitter, recipe: Recipe, used: Mapping[Width, Scheme], family: str | None
) -> tuple[str, str] | None:
    """Two linears that read one input and are not as alike as the tool needs, or None."""
    widths = recipe.linear_widths()
    values: dict[str, LinearWidths] = {
        "": {},
        "width": widths,
        "group size": {n: used[width].group_size for n, width in widths.items() if width in used},
    }
    return find_split(values[emitter.alike], [find_shared(family)])


def _list_able(family: str | None, schemes: Iterable[Scheme]) -> list[str]:
    """The targets that take the family and hold all schemes."""
    wanted = set(schemes)
    return [
        name
        for name, other in EMITTERS.items()
        if find_gap(name, family) is None and wanted <= other.holds
    ]


def _suggest(able: list[str]) -> str:
    return f"emit for {', '.join(able)}" if able else "write a checkpoint: awqscope requantize"
