"""A finished run opened again to measure more: its model, searches, recipe and sizes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from awqscope.diagnose.inputs.corpora import load_tokenizer
from awqscope.diagnose.inputs.sizes import unit_bytes
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import Record
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.sweep.swappable import uniform_bits
from awqscope.mixedprec.awq.choices import is_complete, search_path
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import list_units
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.weight_files import list_some
from awqscope.mixedprec.recipes.recipe import Recipe, check_fits, load_recipe
from awqscope.mixedprec.scheme import (
    FP16_BITS,
    Grouped,
    UnitWidths,
    Width,
    bits_of,
    sort_widths,
    write_width,
)


@dataclass(frozen=True)
class OpenedRun:
    """A run and what it worked on. models: the width of every unit, by model: `uniform`, `mixed`
    once there is a recipe, and `reference`, whose mapping is empty. extra_bytes: unit -> bytes that
    its promotion adds; kept units are not in it."""

    run: RunDirectory
    spec: RunSpec
    model: SourceModel
    tokenizer: PreTrainedTokenizerBase
    models: Mapping[str, UnitWidths]
    recipe: Recipe | None
    extra_bytes: Mapping[str, int]


def open_source(run: RunDirectory, model_name: str | None, dtype: str | None = None) -> SourceModel:
    """The run's model, at `model_name` where it has moved, to be served in the run's type or in
    `dtype`. InputError where there is no model, or another one."""
    record = run.read_searched()
    spec = record.spec
    try:
        model = open_model(
            model_name or spec.model,
            revision=spec.revision if model_name is None else None,
            trust_remote_code=spec.trust_remote_code,
            dtype=dtype or spec.dtype,
        )
    except InputError as error:
        if model_name is not None:
            raise
        raise InputError(error.what, f"give it with --model{_or_where(record)}") from error
    found, measured = model.hash(), record.source.hashes
    if found == measured:
        return model
    if found.items() < measured.items():
        # Earlier versions merged every safetensors file that lay beside a model's own.
        others = list_some(sorted(measured.keys() - found.keys()))
        raise InputError(
            f"{run.path} was measured with {others} among the weights, which transformers does not "
            "load",
            "run it again elsewhere",
        )
    raise InputError(
        f"{model.path} is not the model of {run.path}", "give it with --model, unchanged"
    )


def _or_where(record: Record) -> str:
    """A further remedy where the run's model is a relative path: where to give the command."""
    began = record.directory
    is_path = not Path(record.spec.model).is_absolute()
    return f", or give the command in {began}" if began and is_path else ""


def open_run(run: RunDirectory, model_name: str | None) -> OpenedRun:
    """The run, its model and its tokenizer. InputError for a run that is unfinished, or whose model
    has moved or changed."""
    spec = run.read_measured().spec
    model = open_source(run, model_name)
    for block in range(model.blocks):
        for bits in spec.schemes:
            if not is_complete(search_path(run.searches, block, bits)):
                raise InputError(
                    f"{run.path} lacks the AWQ search of block {block} at {bits} bits",
                    "run it again elsewhere",
                )
    units = list_units(model.family, model.blocks)
    low = uniform_bits(model, spec.bits, spec.keep_fp16)
    models: dict[str, UnitWidths] = {"reference": {}, "uniform": low}
    recipe = None
    if (run.path / "recipe.json").exists():
        recipe = load_recipe(run.path / "recipe.json")
        check_fits(recipe, model.family, model.blocks)
        recipe = recipe.in_own_groups(spec.low.group_size)
        missing = list_unsearched(run, spec, recipe.widths)
        if missing:
            raise InputError(
                f"{run.path} holds no search at {write_width(missing[0])}, which its recipe.json "
                "wants",
                "put back the recipe that the run chose",
            )
        models["mixed"] = recipe.widths
    extra = {
        unit.name: unit_bytes(model, unit, spec.rescue_bits, spec)
        - unit_bytes(model, unit, spec.bits, spec)
        for unit in units
        if unit.name not in spec.keep_fp16
    }
    tokenizer = load_tokenizer(model.path, trust_remote_code=spec.trust_remote_code)
    return OpenedRun(run, spec, model, tokenizer, models, recipe, extra)


def list_unsearched(run: RunDirectory, spec: RunSpec, widths: UnitWidths) -> list[Width]:
    """The widths that a run holds no search for, where a recipe (unit -> width) has them."""
    missing: set[Width] = set()
    for unit, width in widths.items():
        block = int(unit.partition(".")[0])
        if bits_of(width) not in (*spec.schemes, FP16_BITS) or (
            isinstance(width, Grouped)
            and width not in missing
            and not is_complete(search_path(run.searches, block, width))
        ):
            missing.add(width)
    return sort_widths(missing)


def promote(opened: OpenedRun, units: Iterable[str]) -> UnitWidths:
    """The uniform model with `units` at the rescue width."""
    return {**opened.models["uniform"], **dict.fromkeys(units, opened.spec.rescue_bits)}
