"""What TGI (text-generation-inference) makes of a compressed-tensors checkpoint.

By its source alone, 3.3.6-dev0 of 2026-01-08 (server/text_generation_server/layers/
compressed_tensors and layers/marlin), and that of compressed-tensors 0.9.1, which it pins. It has
been in maintenance mode since 2025-12-11 and names vLLM and SGLang in its own place; it is not run
here. How it reads experts, the shapes that its kernels take, and files are not among the rules.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from awqscope.mixedprec.checkpoints.matching import (
    Declared,
    Groups,
    Layer,
    find_targets,
    read_groups,
)
from awqscope.mixedprec.checkpoints.serving import (
    PACKED,
    REFUSES,
    SCALE,
    WRONG,
    ZEROS,
    Seen,
    Served,
    Serving,
    Shapes,
    join_alike,
)
from awqscope.mixedprec.families.table import EXPERTS

TGI = "TGI"
FINISHED = ("compressed", "frozen")
WIDTHS = (4, 8)


def check_tgi(quantization: Mapping[str, Any], shapes: Shapes, served: Served) -> Serving:
    """What it makes of a checkpoint: `quantization_config`, and the shape of every tensor on disk.
    Nothing is said of other formats, and of mixtures of experts."""
    plain = quantization.get("quant_method") == "compressed-tensors"
    mixture = any(layer.kind == EXPERTS for layer in served.layers)
    if not plain or quantization.get("format") != "pack-quantized" or mixture:
        return Serving((), ())
    try:
        groups = read_groups(quantization)
        listed = [t for g in quantization["config_groups"].values() for t in g["targets"]]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        found = [Seen(TGI, REFUSES, f"it cannot be read ({error!r})", "quantization_config")]
    else:
        found = [*_check_config(quantization, groups, listed)]
        for layer in served.layers:
            found += [
                Seen(TGI, effect, reason, linear, limit)
                for linear, effect, reason, limit in _read_layer(layer, groups, shapes, served)
            ]
    return Serving(tuple(join_alike(found)), (TGI,))


def _check_config(
    quantization: Mapping[str, Any], groups: Groups, listed: Sequence[str]
) -> Iterator[Seen]:
    status = quantization.get("quantization_status")
    if status not in FINISHED:
        yield Seen(TGI, REFUSES, "it must be compressed or frozen", f"the status {status!r}")
    for target in groups.targets:
        if listed.count(target) > 1:
            yield Seen(TGI, REFUSES, "it may be named once only", f"the target {target}")
    for declared in dict.fromkeys(groups.targets.values()):
        if declared.bits not in WIDTHS:
            yield Seen(TGI, REFUSES, f"{declared}, for which it has no loader", declared.group)


def _read_layer(
    layer: Layer, groups: Groups, shapes: Shapes, served: Served
) -> Iterator[tuple[str, str, str, bool]]:
    """Linear, effect, reason, and whether it is a limit of TGI's. All parts of a fused layer are
    read as the first one's config group says, and set side by side before the kernel sees them."""
    first = layer.parts[0]
    if groups.ignores(first) or "Linear" in groups.ignore:
        for linear in layer.parts:
            if f"{linear}.weight" not in shapes:
                yield linear, REFUSES, "not stored at 16 bits, and read so: it is ignored", False
        return
    targets = find_targets(first, groups)
    if not targets:
        yield first, REFUSES, "neither ignored nor matched by a target", False
        return
    declared = groups.targets[targets[0]]
    widths = set()
    for linear in layer.parts:
        stored = {part: shapes.get(f"{linear}.{part}") for part in (PACKED, SCALE, ZEROS)}
        packed, scale = stored[PACKED], stored[SCALE]
        if packed is None or scale is None:
            missing = PACKED if packed is None else SCALE
            yield linear, REFUSES, f"stored without {missing}, read as {declared}", False
            continue
        widths.add((packed[1], scale[1]))
        yield from _read_part(layer, linear, declared, stored, served.columns.get(linear))
    if len(widths) > 1:
        yield layer.name, REFUSES, "its parts are stored in several widths or groups", False


def _read_part(
    layer: Layer,
    linear: str,
    declared: Declared,
    stored: Mapping[str, Sequence[int] | None],
    columns: int | None,
) -> Iterator[tuple[str, str, str, bool]]:
    """A packed linear. What is stored says how many inputs it has, which its first forward finds
    out; the kernel takes the size of groups from the number of scales. columns: its inputs, where
    they are known."""
    packed = stored[PACKED]
    assert packed is not None
    inputs = packed[1] * (32 // declared.bits)
    if declared.symmetric and stored[ZEROS] is not None:
        yield linear, WRONG, f"its zero points are left out, being read as {declared}", False
    elif not declared.symmetric and not layer.splits_inputs:
        yield linear, REFUSES, "it looks for zero points as qzeros", True
    elif not declared.symmetric and stored[ZEROS] is None:
        yield linear, REFUSES, f"stored without {ZEROS}, read as {declared}", False
    elif not declared.symmetric:
        yield linear, WRONG, "its kernel takes zero points in another order", True
    if columns is not None and inputs != columns:
        reason = f"read as {declared}, which its {PACKED} of {list(packed)} is not"
        yield linear, REFUSES, reason, False
    elif declared.group_size != -1 and inputs % declared.group_size:
        yield linear, REFUSES, f"groups of {declared.group_size} do not tile {inputs} inputs", False
