"""Which config group each consumer takes for a linear of a compressed-tensors checkpoint.

Whoever reads a checkpoint's tensors here asks `read_agreed`, which takes what transformers would.
vLLM, SGLang and transformers read the same `config_groups` and `ignore` by different rules. Those
here were read from vLLM 0.32 (quantization/compressed_tensors/utils.py, utils/config_utils.py),
SGLang 0.5.23 (its own compressed_tensors/utils.py and compressed_tensors.py), and
compressed-tensors 0.17 (utils/match.py, lifecycle/apply.py), which transformers 5 calls. Tests hold
them against the real functions.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from awqscope.mixedprec.families.table import EXPERTS, Family, list_units
from awqscope.mixedprec.files.untrusted import check_pattern
from awqscope.mixedprec.scheme import read_group_size

# vLLM's class for a kind of unit: targets may name classes.
CLASSES = {
    "qkv": "QKVParallelLinear",
    "gate_up": "MergedColumnParallelLinear",
    "o": "RowParallelLinear",
    "down": "RowParallelLinear",
    EXPERTS: "RoutedExperts",
}
LONE_CLASS = "ColumnParallelLinear"
# SGLang's class for experts, and what it calls their linears, whatever a checkpoint does.
SGLANG_EXPERTS_CLASS, SGLANG_EXPERT = "FusedMoE", ("gate_proj", "up_proj", "down_proj")
# vLLM's StableLM fuses, but its class has no `packed_modules_mapping`: only fused names match.
UNMAPPED = ("stablelm",)
# Where vLLM serves a model through transformers' code, its blocks are those of the base model.
RENAMED = {"gpt_neox.": "model."}


@dataclass(frozen=True)
class Layer:
    """A linear as a server holds it. name: the server's, by the checkpoint's prefix; parts: the
    linears of the checkpoint that it is made of; kind: of the unit."""

    name: str
    parts: tuple[str, ...]
    kind: str

    @property
    def server_class(self) -> str:
        return CLASSES.get(self.kind, LONE_CLASS)

    @property
    def splits_inputs(self) -> bool:
        """Whether a server with several devices gives each a part of the inputs."""
        return self.server_class == "RowParallelLinear"


@dataclass(frozen=True)
class Declared:
    """What a config group says of weights. group_size: -1 for one group a row. group: its name."""

    bits: int
    group_size: int
    symmetric: bool
    group: str = field(compare=False)

    def __str__(self) -> str:
        kind = "symmetric" if self.symmetric else "asymmetric"
        size = "one group a row" if self.group_size == -1 else f"groups of {self.group_size}"
        return f"{self.bits} bits, {kind}, {size}"


@dataclass(frozen=True)
class Refused:
    """A consumer stops at a layer; why, in words."""

    why: str


# None: the layer is taken to be 16-bit.
Reading = Declared | Refused | None


@dataclass(frozen=True)
class Groups:
    """`config_groups` and `ignore`. targets: in the order of the file; of a target that occurs
    twice, at the first place with the last meaning, as every consumer's dict has it. unsure: those
    that occur twice with different meanings."""

    targets: Mapping[str, Declared]
    ignore: tuple[str, ...]
    unsure: frozenset[str] = frozenset()

    def naming(self, name: str) -> list[str]:
        """Every target that matches a linear's name."""
        return [target for target in self.targets if matches(name, target)]

    def ignores(self, name: str) -> bool:
        """Whether an entry of `ignore` matches a name."""
        return any(matches(name, target) for target in self.ignore)


def served_layers(family: Family, blocks: int) -> tuple[Layer, ...]:
    """The linears of all blocks as servers fuse them."""
    return tuple(
        Layer(
            f"{family.blocks}.{unit.block}.{unit.kind.fused}",
            tuple(f"{family.blocks}.{unit.block}.{linear}" for linear in unit.linears),
            unit.kind.name,
        )
        for unit in list_units(family, blocks)
    )


def list_fused(layers: Iterable[Layer], names: Iterable[str]) -> list[Layer]:
    """Those of a model's layers that a checkpoint with tensors of these names holds fused, where
    the model has linears of their own."""
    modules: set[str] = set()
    for name in names:
        words = name.split(".")
        modules |= {".".join(words[:cut]) for cut in range(1, len(words))}
    return [
        layer
        for layer in layers
        if layer.kind != EXPERTS
        and layer.parts != (layer.name,)
        and layer.name in modules
        and not modules.intersection(layer.parts)
    ]


def read_groups(quantization: Mapping[str, Any]) -> Groups:
    """The groups of a `quantization_config`, without those of attention, which hold scales of the
    cache. KeyError, TypeError, ValueError or AttributeError where it is malformed, or a pattern is
    (`check_pattern`)."""
    targets: dict[str, Declared] = {}
    unsure: set[str] = set()
    for name, group in quantization["config_groups"].items():
        if len(group["targets"]) == 1 and group["targets"][0].endswith("Attention"):
            continue
        weights = group["weights"]
        channel = weights.get("strategy") == "channel"
        size = -1 if channel else read_group_size(weights)
        # Where nothing is said of it, every consumer takes weights to be symmetric.
        symmetric = bool(weights.get("symmetric", True))
        declared = Declared(int(weights["num_bits"]), size, symmetric, name)
        unsure |= {t for t in group["targets"] if targets.get(t, declared) != declared}
        targets |= dict.fromkeys(group["targets"], declared)
    ignore = tuple(quantization.get("ignore") or ())
    for target in (*targets, *ignore):
        check_pattern(target.removeprefix("re:"))
    return Groups(targets, ignore, frozenset(unsure))


def matches(name: str, target: str) -> bool:
    """Whether a target is the name, or a pattern (`re:`) that matches from its start on."""
    if target.startswith("re:"):
        return re.match(target.removeprefix("re:"), name) is not None
    return target == name


def _matches_in_vllm(name: str, target: str) -> bool:
    """vLLM renames exact names with its modules, and leaves patterns alone."""
    if not target.startswith("re:"):
        return target == name
    for prefix, other in RENAMED.items():
        if name.startswith(prefix):
            name = other + name.removeprefix(prefix)
    return matches(name, target)


def _contains(value: str, target: str) -> bool:
    """The looser match for class names: a pattern, or a part of it in any case."""
    return matches(value, target) if target.startswith("re:") else target.lower() in value.lower()


def _first(name: str, targets: Iterable[str]) -> str | None:
    return next((target for target in targets if _matches_in_vllm(name, target)), None)


def _first_class(server_class: str, targets: Iterable[str]) -> str | None:
    return next((target for target in targets if _contains(server_class, target)), None)


def _first_fused(parts: tuple[str, ...], targets: Iterable[str]) -> str | None:
    """The first part's target, where each part has one."""
    found = [_first(part, targets) for part in parts]
    return found[0] if found and None not in found else None


def _differs(layer: Layer, parts: Iterable[str]) -> Refused:
    names = ", ".join(part.rpartition(".")[2] for part in parts)
    return Refused(f"of its fused linears only {names} is ignored")


def read_in_vllm(layer: Layer, groups: Groups, mapped: bool = True) -> Reading:
    """vLLM: ignored by its fused name, or else all of its parts; then the first target in the
    file's order: of the fused name, else of the parts (the first's for all), else of the class.

    mapped: whether vLLM's class says which linears it fuses. Of experts it asks those of the first,
    one by one.
    """
    if layer.kind == EXPERTS:
        return _read_experts(layer, groups)
    parts = layer.parts if mapped and layer.parts != (layer.name,) else ()
    if _first(layer.name, groups.ignore) is None:
        ignored = [part for part in parts if _first(part, groups.ignore)]
        if ignored and len(ignored) < len(parts):
            return _differs(layer, ignored)
    else:
        ignored = [layer.name]
    if ignored:
        return None
    target = (
        _first(layer.name, groups.targets)
        or _first_fused(parts, groups.targets)
        or _first_class(layer.server_class, groups.targets)
    )
    return groups.targets[target] if target else None


def _read_experts(layer: Layer, groups: Groups) -> Reading:
    first = [part for part in layer.parts if part.startswith(f"{layer.name}.0.")]
    found = []
    for part in first:
        target = _first(part, groups.targets) or _first_class(layer.server_class, groups.targets)
        # A catch-all for linears is one for experts.
        if target is None and "Linear" in groups.targets:
            target = "Linear"
        ignored = _first(part, groups.ignore) is not None
        found.append(None if ignored or target is None else groups.targets[target])
    if any(declared != found[0] for declared in found):
        return Refused("gate, up and down of its experts have several schemes")
    return found[0] if found else None


def read_in_sglang(layer: Layer, groups: Groups) -> Reading:
    """SGLang: ignored by its fused name, or else all of its parts, where an entry of `ignore` that
    is not a pattern may be the end of a name (before 0.5.23, any part of it). Then the first target
    in the file's order: of the fused name, else of the class, else of the parts (the first's for
    all). A linear without a target is an error. Of experts it asks the first one's linears, by
    names of its own."""
    if layer.kind == EXPERTS:
        return _read_experts_in_sglang(layer, groups)
    fused = layer.parts != (layer.name,)
    asked = layer.parts if fused and layer.name not in groups.ignore else (layer.name,)
    ignored = [part for part in asked if _is_ignored_in_sglang(part, groups)]
    if ignored:
        return None if len(ignored) == len(asked) else _differs(layer, ignored)
    target = (
        next((target for target in groups.targets if matches(layer.name, target)), None)
        or _first_class(layer.server_class, groups.targets)
        or (_first_fused(layer.parts, groups.targets) if fused else None)
    )
    return groups.targets[target] if target else Refused("neither ignored nor matched by a target")


def _is_ignored_in_sglang(name: str, groups: Groups) -> bool:
    return groups.ignores(name) or any(name.endswith(f".{end}") for end in groups.ignore)


def _read_experts_in_sglang(layer: Layer, groups: Groups) -> Reading:
    found: list[Reading] = []
    for name in (f"{layer.name}.0.{part}" for part in SGLANG_EXPERT):
        target = next((t for t in groups.targets if matches(name, t)), None)
        target = target or _first_class(SGLANG_EXPERTS_CLASS, groups.targets)
        if target is None and "Linear" in groups.targets:
            target = "Linear"
        if _is_ignored_in_sglang(name, groups):
            found.append(None)
        elif target is None:
            return Refused("neither ignored nor matched by a target")
        else:
            found.append(groups.targets[target])
    if any(reading != found[0] for reading in found):
        return Refused("gate, up and down of its experts have several schemes")
    return found[0]


def read_in_transformers(linear: str, groups: Groups, own_class: str = "Linear") -> Declared | None:
    """transformers: each linear for itself; ignored by name or class, else by the first target of
    `find_targets`."""
    if groups.ignores(linear) or any(_is_class(target, own_class) for target in groups.ignore):
        return None
    found = find_targets(linear, groups, own_class)
    return groups.targets[found[0]] if found else None


def find_targets(linear: str, groups: Groups, own_class: str = "Linear") -> list[str]:
    """The targets that transformers has a choice of for a linear, in its order: its name, else the
    patterns that match it in alphabetical order, else those of its class."""
    matching = sorted(target for target in groups.targets if matches(linear, target))
    named = [target for target in matching if not target.startswith("re:")]
    by_class = sorted(target for target in groups.targets if _is_class(target, own_class))
    return named or matching or by_class


def _is_class(target: str, own_class: str) -> bool:
    return target in (own_class, "Module")


def read_agreed(linear: str, groups: Groups) -> Declared:
    """What the config groups say of a linear that is stored packed, whether or not it is ignored.
    ValueError where that is nothing, or where groups between which transformers would choose by the
    alphabet say different things."""
    found = find_targets(linear, groups)
    if not found:
        raise ValueError(f"config groups say nothing of {linear}")
    declared = groups.targets[found[0]]
    if groups.unsure.intersection(found) or any(groups.targets[t] != declared for t in found):
        raise ValueError(f"config groups say different things of {linear}")
    return declared
