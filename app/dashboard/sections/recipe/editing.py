"""A recipe while it is edited: what the browser is told, so that it can follow every change by
itself, and what it tells of what was changed."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from awqscope.app.recipe_points import count_useful
from awqscope.app.store import Store
from awqscope.app.words.predict import (
    Prediction,
    Units,
    predict,
    read_changes,
    unit_kl,
    unit_table,
    widths_of,
)
from awqscope.diagnose.runs.record import Record
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.emitters import EMITTERS, emit
from awqscope.mixedprec.recipes.recipe import Recipe, change_recipe, recipe_json
from awqscope.mixedprec.recipes.scores import Scores
from awqscope.mixedprec.recipes.solver import list_steps, solve
from awqscope.mixedprec.scheme import Width, sort_widths
from awqscope.mixedprec.words import write_number, write_share

# The form of a recipe that `requantize` takes; the others are tools that it is written for.
OWN_FORM = "awqscope"
# Digits of a KL that the browser is told: more than it shows of any sum of them.
DIGITS = 8
MB = 1e6


@dataclass(frozen=True)
class Editing:
    """A run's recipe and what its units may be. own: the run's recipe. units: unit -> width -> its
    row. allowed: the widths that every unit may have. scores: None for a run of a version that did
    not keep enough to solve for a budget."""

    record: Record
    own: Recipe
    units: Units
    allowed: list[Width]
    scores: Scores | None

    def read(self, changes: str) -> dict[str, Width]:
        """unit -> width of every unit, from what differs from the run's own recipe."""
        return self.own.widths | read_changes(changes, self.units, self.allowed)

    def make(self, changes: str) -> Recipe:
        """The recipe; the run's own where nothing was changed."""
        widths = self.read(changes)
        return self.own if widths == self.own.widths else change_recipe(self.own, widths)

    def predict(self, changes: str) -> Prediction:
        """What the recipe should come to."""
        return predict(self.record, self.units, self.read(changes))

    def solve(self, budget: str, value: float) -> dict[str, Width]:
        """The best widths for a budget: `bits` per weight, or `mb`, all tensors on disk. Units that
        the run kept stay as they are. InputError for a budget that nothing meets."""
        assert self.scores is not None
        if not math.isfinite(value):
            raise InputError(f"{value} is no budget", "give a number like 4.5")
        if budget == "bits":
            found = solve(self.scores, target_bits=value)
        else:
            found = solve(self.scores, max_bytes=round(value * MB))
        kept = {unit.name for unit in self.scores.units if len(unit.options) == 1}
        return {u: self.own.widths[u] if u in kept else w for u, w in found.widths.items()}


def open_editing(store: Store, name: str) -> Editing | None:
    """The recipe of a run; None where there is none to edit yet, or ever."""
    record, own = store.summary(name).record, store.recipe(name)
    if not isinstance(record, Record) or record.headline is None or own is None:
        return None
    units = unit_table(store.table(name, "units"), store.table(name, "groups"))
    if not units:
        return None
    return Editing(record, own, units, widths_of(units), store.grouped_scores(name))


def write_recipe(editing: Editing, changes: str, form: str) -> tuple[str, str]:
    """The recipe as a file's text, and the file's name. form: `awqscope`, or a tool's name.
    InputError where the tool cannot hold it."""
    made = editing.make(changes)
    if form == OWN_FORM:
        return json.dumps(recipe_json(made), indent=2), "recipe.json"
    record = editing.record
    schemes = record.spec.schemes_at(made.widths.values())
    text = emit(form, made, schemes, record.source.architecture)
    return text.rstrip("\n") + "\n", f"{form}{EMITTERS[form].suffix}"


def list_forms() -> dict[str, str]:
    """What a recipe can be written for, in words, by what `write_recipe` takes."""
    return {OWN_FORM: "awqscope (JSON)", **{name: name for name in EMITTERS}}


def browser_data(editing: Editing, store: Store, name: str) -> dict[str, Any]:
    """What a browser needs to predict any recipe by itself, and to take those of the frontier.

    widths: those that any unit has, of which the first `allowed` can be chosen. units: name, place
    of its own width among them, whether the run kept it, and [bytes, KL] at each, None where it was
    not scored. start, steps: the frontier's first recipe and its steps, as [unit, width] by place.
    """
    record, own = editing.record, editing.own.widths
    others = sort_widths(set(own.values()) - set(editing.allowed))
    widths = [*editing.allowed, *others]
    place = {width: at for at, width in enumerate(widths)}
    names = [entry.unit for entry in editing.own.units]
    kept = set(record.spec.keep_fp16)
    at_low = [editing.units[unit][record.spec.bits] for unit in editing.units if unit not in kept]
    headline = record.measured
    return {
        "low": place[record.spec.bits],
        "allowed": len(editing.allowed),
        "widths": list(map(str, widths)),
        "kinds": list(dict.fromkeys(unit.partition(".")[2] for unit in names)),
        "flagged": list(headline.flagged),
        "units": [
            [unit, place[own[unit]], unit in kept, [_pair(editing, unit, w) for w in widths]]
            for unit in names
        ],
        "total": sum(map(unit_kl, at_low)),
        "weights": editing.scores.weights if editing.scores is not None else None,
        "uniform": [headline.bytes.uniform, headline.kl.uniform, headline.ppl.uniform],
        "reference": headline.ppl.reference,
        "notes": _write_notes(record),
        **_list_frontier(editing, store, name, names, place),
    }


def _pair(editing: Editing, unit: str, width: Width) -> tuple[int, float] | None:
    row = editing.units[unit].get(width)
    return None if row is None else (row["bytes"], float(f"{unit_kl(row):.{DIGITS}g}"))


def _write_notes(record: Record) -> dict[str, list[str]]:
    """What stands under the predicted KL, perplexity and share given back: of the run's own recipe
    what was measured, of any other what it is to be held against."""
    headline = record.measured
    other = [f"uniform {headline.kl.uniform:.4f}", f"16-bit {headline.ppl.reference:.3f}", ""]
    if headline.kl.mixed is None:
        return {"own": other, "other": other}
    own = [
        f"measured {write_number(headline.kl.mixed, '.4f')}",
        f"measured {write_number(headline.ppl.mixed, '.3f')}",
        f"measured {write_share(headline.recovered)}",
    ]
    return {"own": own, "other": other}


def _list_frontier(
    editing: Editing, store: Store, name: str, names: list[str], place: Mapping[Width, int]
) -> dict[str, Any]:
    if editing.scores is None:
        return {"start": [], "steps": []}
    start, steps = list_steps(editing.scores)
    at = {unit: number for number, unit in enumerate(names)}
    # A kept unit was scored as it is, at 16 bits.
    chosen = {unit.name for unit in editing.scores.units if len(unit.options) > 1}
    useful = max(0, count_useful(store.outline(name)) - 1)
    return {
        "start": [[at[unit], place[width]] for unit, width in start.items() if unit in chosen],
        "steps": [[at[unit], place[width]] for unit, width in steps[:useful]],
    }
