"""Bytes on disk of units and models at any widths, known before anything is written."""

from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.awq.realise import stored_bytes
from awqscope.mixedprec.families.table import Unit, list_units
from awqscope.mixedprec.models.forward import get_linear
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.scheme import FP16_BITS, Width, bits_of


def linear_bytes(model: SourceModel, block: int, linear: str, width: Width, spec: RunSpec) -> int:
    """Bytes of one linear's weight on disk at a width; `linear` is its name inside the block."""
    scheme = spec.schemes_at([width]).get(width, spec.low)
    module = get_linear(model.block_shell(block), linear)
    return stored_bytes(
        module.out_features,
        module.in_features,
        bits_of(width),
        model.family.kind_of(linear).scheme(scheme),
    )


def unit_bytes(model: SourceModel, unit: Unit, width: Width, spec: RunSpec) -> int:
    """Bytes of a unit's weights on disk at a width."""
    return sum(linear_bytes(model, unit.block, linear, width, spec) for linear in unit.linears)


def reference_bytes(model: SourceModel) -> int:
    """Bytes of the tensors of a model in 16 bits."""
    return 2 * sum(parameter.numel() for _, parameter in model.list_parameters())


def model_bytes(model: SourceModel, spec: RunSpec, changed: dict[str, int]) -> tuple[int, int]:
    """Bytes of the tensors of a model with every unit at the low width but those `changed`, and of
    the reference in 16 bits."""
    units = list_units(model.family, model.blocks)
    reference = reference_bytes(model)
    kept = dict.fromkeys(spec.keep_fp16, FP16_BITS)
    widths = {unit.name: spec.bits for unit in units} | kept | changed
    saved = sum(
        unit_bytes(model, unit, FP16_BITS, spec) - unit_bytes(model, unit, widths[unit.name], spec)
        for unit in units
    )
    return reference - saved, reference
