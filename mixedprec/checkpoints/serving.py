"""What vLLM, SGLang and transformers make of a checkpoint: whether they load what is stored, refuse
it, or load it and answer wrongly.

Decided from config.json and the files' headers alone. What follows from a mismatch was seen in
vLLM 0.32 and transformers 5.23 with checkpoints that break one rule each; tests and
`make test-serving` repeat that. SGLang's loading is vLLM's, from which it was copied, but for names
that a layer has no place for: its models leave them out with a warning at most (by the source of
0.5.23: llama.py, qwen2.py, qwen3_moe.py), where others of them stop.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from awqscope.mixedprec.checkpoints.matching import (
    UNMAPPED,
    Declared,
    Groups,
    Layer,
    Reading,
    Refused,
    list_fused,
    matches,
    read_groups,
    read_in_sglang,
    read_in_transformers,
    read_in_vllm,
    served_layers,
)
from awqscope.mixedprec.families.table import EXPERTS, Family
from awqscope.mixedprec.models.dtypes import write_type
from awqscope.mixedprec.scheme import read_group_size
from awqscope.mixedprec.words import join_words

LOADS, WRONG, REFUSES = "loads", "loads wrongly", "refuses"
PHRASES = {WRONG: "Loads wrongly in {}: ", REFUSES: "Refused by {}: ", "": ""}
VERBS = {
    LOADS: ("loads it", "load it"),
    WRONG: ("loads it wrongly", "load it wrongly"),
    REFUSES: ("refuses it", "refuse it"),
}
VLLM, TRANSFORMERS, SGLANG = "vLLM", "transformers", "SGLang"
CONSUMERS = (VLLM, SGLANG, TRANSFORMERS)
FUSED = "fused, so that its parts get random values"
PACKED, SCALE, ZEROS = "weight_packed", "weight_scale", "weight_zero_point"
# compressed-tensors 0.17.1 imports psutil and does not ask for it.
OLD_ENOUGH = 'pip install "compressed-tensors~=0.17.1" psutil'
WITHOUT_ZEROS = f"{OLD_ENOUGH}, or run with --symmetric, which every version since 0.15 reads"
MARLIN_WIDTHS, MARLIN_GROUPS = (4, 8), (-1, 32, 64, 128)

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Remark:
    """One thing that was found of a checkpoint. consumer: who reads it so; "" for a note on all of
    them. effect: REFUSES, WRONG, or "" where nothing changes. what: in words. limit: whether it is
    something that the consumer cannot do, rather than a fault of whoever wrote the checkpoint."""

    consumer: str
    effect: str
    what: str
    limit: bool = False


@dataclass(frozen=True)
class Serving:
    """What was found of a checkpoint. consumers: those whose rules it was checked against."""

    remarks: tuple[Remark, ...]
    consumers: tuple[str, ...] = CONSUMERS

    def outcome(self, consumer: str) -> str:
        """LOADS, REFUSES, or WRONG."""
        effects = {f.effect for f in self.remarks if f.consumer == consumer}
        return next((effect for effect in (REFUSES, WRONG) if effect in effects), LOADS)

    @property
    def faults(self) -> tuple[Remark, ...]:
        """The remarks that are faults of the tool that wrote the checkpoint."""
        return tuple(f for f in self.remarks if f.effect and not f.limit)

    @property
    def notes(self) -> list[str]:
        """The remarks in words, of several consumers as one."""
        consumers: dict[tuple[str, str], list[str]] = {}
        for found in self.remarks:
            consumers.setdefault((found.effect, found.what), []).append(found.consumer)
        return [
            PHRASES[effect].format(" and ".join(names)) + what
            for (effect, what), names in consumers.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """The outcome by consumer, in lower case, and `notes`."""
        outcomes = {name.lower(): self.outcome(name) for name in self.consumers}
        return {**outcomes, "notes": self.notes}


def write_serving(serving: Mapping[str, Any]) -> str:
    """`Serving.to_json()` in a line: "transformers loads it, vLLM and SGLang refuse it. Why …".
    An entry `type` adds a sentence on serving it in that type (`write_type`)."""
    said = []
    for outcome, verbs in VERBS.items():
        names = [name for name in CONSUMERS if serving.get(name.lower()) == outcome]
        if names:
            said.append(f"{join_words(names)} {verbs[len(names) > 1]}")
    of_type = write_type(serving.get("type"))
    return ". ".join(
        [", ".join(said) or "unknown", *([of_type] * bool(of_type)), *serving["notes"]]
    )


@dataclass(frozen=True)
class Served:
    """An architecture as servers hold it. layers: of all blocks. columns: linear -> inputs, of
    those that are known. mapped: whether vLLM's class says which linears it fuses. The rest is as
    transformers names it. heads: linears outside the blocks. modules: what is neither linear nor
    embedding."""

    layers: tuple[Layer, ...]
    columns: Mapping[str, int]
    mapped: bool = True
    heads: tuple[str, ...] = ("lm_head",)
    embeddings: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


def describe_served(
    family: Family,
    model_type: str,
    blocks: int,
    columns: Mapping[str, int],
    embeddings: tuple[str, ...] = (),
    modules: tuple[str, ...] = (),
) -> Served:
    """The architecture of a family's model. columns: inputs of linears, in the blocks and outside
    of them. embeddings, modules: as transformers names them, modules being neither embeddings nor
    linears."""
    layers = served_layers(family, blocks)
    inside = f"{family.blocks}."
    heads = tuple(name for name in columns if not name.startswith(inside))
    return Served(layers, columns, model_type not in UNMAPPED, heads, embeddings, modules)


def check_serving(quantization: Mapping[str, Any], shapes: Shapes, served: Served) -> Serving:
    """What every consumer makes of a checkpoint: `quantization_config`, and the shape of every
    tensor on disk."""
    fused = [layer.name for layer in list_fused(served.layers, shapes)]
    if fused:
        seen = (Seen(TRANSFORMERS, WRONG, FUSED, name) for name in fused)
        return Serving(tuple(join_alike(seen)), (TRANSFORMERS,))
    method = quantization.get("quant_method")
    if method != "awq" and (
        method != "compressed-tensors" or quantization.get("format") != "pack-quantized"
    ):
        return Serving((), ())
    judged = (VLLM,) if method == "awq" else CONSUMERS
    try:
        if method == "awq":
            return Serving(tuple(join_alike(_check_gemm(quantization, shapes, served))), judged)
        if any(group.get("input_activations") for group in quantization["config_groups"].values()):
            return Serving((), ())
        groups = read_groups(quantization)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"config.json's quantization_config cannot be read ({error!r})"
        return Serving(tuple(Remark(consumer, REFUSES, what) for consumer in judged), judged)
    found = [
        *_check_servers(groups, shapes, served),
        *_check_transformers(groups, shapes, served),
        *_check_groups(groups, served),
        *_check_versions(groups),
    ]
    return Serving(tuple(join_alike(found)))


@dataclass(frozen=True)
class Seen:
    """A remark on one thing; those that differ in what they are on only are joined into one."""

    consumer: str
    effect: str
    reason: str
    on: str
    limit: bool = False


def join_alike(found: Iterable[Seen]) -> Iterator[Remark]:
    """What was seen, as remarks: alike things as one."""
    alike: dict[tuple[str, str, str, bool], list[str]] = {}
    for seen in found:
        where = alike.setdefault((seen.consumer, seen.effect, seen.reason, seen.limit), [])
        where.append(seen.on)
    for (consumer, effect, reason, limit), where in alike.items():
        rest = f" and {len(where) - 1} more" if len(where) > 1 else ""
        yield Remark(consumer, effect, f"{where[0]}{rest}: {reason}", limit)


def _stored(shapes: Shapes, linear: str) -> dict[str, Sequence[int]]:
    parts = ("weight", PACKED, SCALE, ZEROS, "weight_shape")
    return {part: shapes[f"{linear}.{part}"] for part in parts if f"{linear}.{part}" in shapes}


def _columns(served: Served, linear: str, declared: Declared, groups: int) -> int | None:
    """A linear's inputs; of one not listed, what its scales say. None where nothing says."""
    known = served.columns.get(linear)
    if known is None and declared.group_size != -1:
        known = groups * declared.group_size
    return known


def _check_servers(groups: Groups, shapes: Shapes, served: Served) -> Iterator[Seen]:
    """vLLM's and SGLang's reading of every layer, against what is stored of its parts."""
    for layer in served.layers:
        readings: dict[str, Reading] = {
            VLLM: read_in_vllm(layer, groups, served.mapped),
            SGLANG: read_in_sglang(layer, groups),
        }
        for consumer, reading in readings.items():
            unknown = WRONG if consumer == SGLANG else REFUSES
            if isinstance(reading, Refused):
                yield Seen(consumer, REFUSES, reading.why, layer.name)
                continue
            for linear in layer.parts:
                loaded = _load_in_server(layer, linear, reading, shapes, served, unknown)
                for effect, reason in loaded:
                    yield Seen(consumer, effect, reason, linear)


def _load_in_server(
    layer: Layer,
    linear: str,
    declared: Declared | None,
    shapes: Shapes,
    served: Served,
    unknown: str,
) -> Iterator[tuple[str, str]]:
    """What goes wrong when a part of a layer is loaded as declared: effect and reason. unknown: the
    effect of names that it has no place for. Tensors that are missing are not refused. A layer
    whose inputs can be split takes as many columns as it needs, and refuses only fewer."""
    stored = _stored(shapes, linear)
    if declared is None:
        if PACKED in stored:
            yield unknown, "stored packed, read as 16-bit, being ignored or without a target"
        elif "weight" not in stored:
            yield WRONG, "not stored"
        return
    if "weight" in stored:
        yield unknown, f"stored at 16 bits, read as {declared}"
        return
    if ZEROS in stored and declared.symmetric:
        yield unknown, f"stored with zero points, read as {declared}"
    needed = [PACKED, SCALE] + ([] if declared.symmetric else [ZEROS])
    missing = [part for part in needed if part not in stored]
    if missing:
        yield WRONG, f"stored without {missing[0]}, read as {declared}"
    if PACKED not in stored or SCALE not in stored:
        return
    columns = _columns(served, linear, declared, stored[SCALE][1])
    if columns is None:
        return
    if declared.group_size != -1 and columns % declared.group_size:
        yield REFUSES, f"groups of {declared.group_size} do not tile its {columns} inputs"
        return
    wanted = {
        PACKED: math.ceil(columns * declared.bits / 32),
        SCALE: 1 if declared.group_size == -1 else columns // declared.group_size,
    }
    zeros = math.ceil(stored[PACKED][0] * declared.bits / 32)
    if ZEROS in stored and not declared.symmetric and stored[ZEROS][0] != zeros:
        yield REFUSES, f"read as {declared}, which its {ZEROS} of {list(stored[ZEROS])} is not"
    for part, width in wanted.items():
        if stored[part][1] != width:
            taken = layer.splits_inputs and stored[part][1] > width
            reason = f"read as {declared}, which its {part} of {list(stored[part])} is not"
            yield (WRONG if taken else REFUSES), reason


def _check_transformers(groups: Groups, shapes: Shapes, served: Served) -> Iterator[Seen]:
    """transformers' reading of every linear, against what is stored of it."""
    linears = [part for layer in served.layers if layer.kind != EXPERTS for part in layer.parts]
    for linear in (*linears, *served.heads, *served.embeddings):
        embeds = linear in served.embeddings
        declared = read_in_transformers(linear, groups, "Embedding" if embeds else "Linear")
        if declared is None and (embeds or linear in served.heads):
            continue
        for effect, reason in _load_in_transformers(linear, declared, shapes, served):
            yield Seen(TRANSFORMERS, effect, reason, linear)
    for module in served.modules:
        caught = groups.naming(module)
        if caught and not groups.ignores(module):
            reason = f"no linear, and matched by the target {caught[0]}"
            yield Seen(TRANSFORMERS, REFUSES, reason, f"the module {module!r}")
    yield from _check_experts(groups, served)


def _load_in_transformers(
    linear: str, declared: Declared | None, shapes: Shapes, served: Served
) -> Iterator[tuple[str, str]]:
    """What goes wrong when a linear is loaded as declared. Of missing and unknown tensors there is
    a warning, and random values take their place; only another shape is refused."""
    stored = _stored(shapes, linear)
    if declared is None:
        if "weight" not in stored:
            yield WRONG, "not stored at 16 bits, read so, being ignored or without a target"
        return
    needed = [PACKED, SCALE, "weight_shape"] + ([] if declared.symmetric else [ZEROS])
    missing = [part for part in needed if part not in stored]
    if missing:
        yield WRONG, f"stored without {missing[0]}, read as {declared}"
    if ZEROS in stored and declared.symmetric:
        yield WRONG, f"stored with zero points, read as {declared}"
    if PACKED not in stored or SCALE not in stored:
        return
    columns = _columns(served, linear, declared, stored[SCALE][1])
    if columns is None:
        return
    group = columns if declared.group_size == -1 else declared.group_size
    wanted = {
        PACKED: math.ceil(columns / (32 // declared.bits)),
        SCALE: math.ceil(columns / group),
    }
    for part, width in wanted.items():
        if stored[part][1] != width:
            reason = f"read as {declared}, which its {part} of {list(stored[part])} is not"
            yield REFUSES, reason


def _check_experts(groups: Groups, served: Served) -> Iterator[Seen]:
    """transformers holds the experts of a block as one tensor, and those of all blocks by one
    scheme, without zero points."""
    mixtures = [layer for layer in served.layers if layer.kind == EXPERTS]
    schemes = [{read_in_transformers(part, groups) for part in layer.parts} for layer in mixtures]
    for layer, found in zip(mixtures, schemes, strict=True):
        if any(declared and not declared.symmetric for declared in found):
            yield Seen(TRANSFORMERS, REFUSES, "experts with zero points", layer.name, True)
        elif len(found) > 1:
            yield Seen(VLLM, WRONG, "experts of several schemes", layer.name)
        elif found != schemes[0]:
            reason = f"experts of another scheme than {mixtures[0].name}"
            yield Seen(TRANSFORMERS, WRONG, reason, layer.name, True)


def _check_groups(groups: Groups, served: Served) -> Iterator[Seen]:
    """Notes: targets that match nothing, linears that two groups match, widths without a kernel."""
    parts = [part for layer in served.layers for part in layer.parts]
    names = [*parts, *(layer.name for layer in served.layers), *served.heads]
    for target, declared in groups.targets.items():
        named = "." in target or target.startswith("re:")
        if named and not any(matches(name, target) for name in names):
            yield Seen("", "", "it matches nothing", f"the target {target} of {declared.group}")
    for part in parts:
        found = {groups.targets[target] for target in groups.naming(part)}
        if len(found) > 1:
            taken = read_in_transformers(part, groups)
            listed = " and ".join(sorted(declared.group for declared in found))
            reason = f"matched by {listed}, of which transformers takes "
            reason += taken.group if taken else "none"
            yield Seen("", "", reason, part)
    for declared in dict.fromkeys(groups.targets.values()):
        if declared.bits == 8 and not declared.symmetric:
            reason = "8 bits with zero points, for which vLLM has no Marlin kernel (only Machete)"
        elif declared.bits not in MARLIN_WIDTHS or declared.group_size not in MARLIN_GROUPS:
            reason = f"{declared}, for which vLLM has no Marlin kernel"
        else:
            continue
        yield Seen("", "", reason, declared.group)


def _check_versions(groups: Groups) -> Iterator[Seen]:
    """A note where transformers loads a checkpoint only beside some versions of its library."""
    if any(not declared.symmetric for declared in groups.targets.values()):
        on = "transformers takes its zero points with compressed-tensors below 0.18 alone"
        yield Seen("", "", WITHOUT_ZEROS, on)


def _check_gemm(quantization: Mapping[str, Any], shapes: Shapes, served: Served) -> Iterator[Seen]:
    """autoawq's GEMM format: entries of `modules_to_not_convert` are parts of the names of what
    stays at 16 bits; fused layers go by their parts, or by their own name where vLLM knows none."""
    kept = quantization.get("modules_to_not_convert") or ()
    size = read_group_size(quantization)

    def is_kept(name: str) -> bool:
        return any(entry in name for entry in kept)

    for layer in served.layers:
        fused = served.mapped and not is_kept(layer.name)
        asked = layer.parts if fused else (layer.name,)
        kept_parts = [part for part in asked if is_kept(part)]
        if kept_parts and len(kept_parts) < len(asked):
            reason = "only some of its parts stay at 16 bits"
            yield Seen(VLLM, REFUSES, reason, layer.name)
            continue
        for linear in layer.parts:
            packed, plain = f"{linear}.qweight" in shapes, f"{linear}.weight" in shapes
            if packed == plain:
                yield Seen(VLLM, WRONG, "not stored, or twice", linear)
            elif packed == bool(kept_parts):
                said = "packed, read as 16-bit" if packed else "at 16 bits, read as packed"
                yield Seen(VLLM, REFUSES, f"stored {said}", linear)
            elif packed:
                rows = shapes[f"{linear}.qweight"][0]
                groups = shapes.get(f"{linear}.scales", [0])[0]
                if groups * (rows if size == -1 else size) != rows:
                    reason = f"{groups} groups of scales for {rows} inputs"
                    yield Seen(VLLM, REFUSES, reason, linear)
