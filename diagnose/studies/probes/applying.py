"""A recipe of an alternative: the run's own recipe, with the probed blocks as the alternative has
them."""

from collections.abc import Sequence
from dataclasses import replace

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.probes.alternatives import Alternative, list_alternatives
from awqscope.diagnose.studies.probes.answer import BlockProbe
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.recipe import Recipe, change_recipe, load_recipe
from awqscope.mixedprec.scheme import Width

RECIPE_KIND = "probe"


def check_applies(run: RunDirectory, blocks: Sequence[int], also: Sequence[str], name: str) -> None:
    """Raise InputError, before anything is measured, unless a recipe can hold the alternative
    `name` to each of the blocks."""
    for block in blocks:
        known = {each.name: each for each in list_alternatives(run.read_searched(), block, also)}
        if name not in known:
            raise InputError(
                f"block {block} has no alternative {name!r}", f"choose from {', '.join(known)}"
            )
        if not known[name].is_recipe:
            raise InputError(
                f"no recipe holds {name}: it is a change of the run", write_change(known[name])
            )
    if not (run.path / "recipe.json").exists():
        raise InputError(f"{run.path} has no recipe to change", run.how_to_finish())


def write_change(alternative: Alternative) -> str:
    """Which options of `awqscope run` make an alternative, in a line."""
    if not alternative.options:
        return "no option of `awqscope run` makes it of a model"
    return f"`awqscope run {alternative.options}` makes it of every block"


def apply_alternative(run: RunDirectory, probes: Sequence[BlockProbe], name: str) -> Recipe:
    """The run's recipe with each probed block as the alternative `name` has it. InputError where
    `check_applies` has one, and where the model could not take it."""
    check_applies(run, [probe.block for probe in probes], (), name)
    own, record = load_recipe(run.path / "recipe.json"), run.read_searched()
    widths: dict[str, Width] = {}
    for probe in probes:
        measured = probe.find(name)
        if measured is None:
            why = next((each.why for each in probe.refused if each.name == name), "not measured")
            raise InputError(
                f"block {probe.block} cannot have {name} ({why})", "apply another alternative"
            )
        widths |= measured.unit_widths
    changed = change_recipe(own, widths)
    provenance = {
        "from": own.kind,
        "run": run.path.resolve().name,
        "alternative": name,
        "blocks": [probe.block for probe in probes],
        "source_sha256": dict(record.source.hashes),
    }
    return replace(changed, kind=RECIPE_KIND, provenance=provenance)
