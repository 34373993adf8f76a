"""What is said of several models side by side: which to ship, their numbers, the differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from awqscope.app.words.compared.two_models import name_side
from awqscope.app.words.numbers import shorten_specs
from awqscope.diagnose.compared.ranking import Ranked
from awqscope.diagnose.compared.standing import Standing
from awqscope.diagnose.gate.findings import Finding, Missing
from awqscope.diagnose.gate.paired import Side, list_models
from awqscope.diagnose.gate.verdict import FAIL, INCONCLUSIVE, PASS, GateVerdict
from awqscope.mixedprec.words import (
    NOTHING,
    bound_points,
    join_words,
    join_written,
    write_interval,
    write_number,
    write_points,
    write_size,
)

COLUMNS = {
    "size": "Size",
    "bits": "Bits a weight",
    "ppl": "PPL, ΔPPL",
    "kl": "KL, mean",
    "top": "Same top token",
    "p999": "KL, p99.9",
    "worst": "KL, worst text",
}
# What is saved of a column of two numbers, each in its own.
APART = {"ppl": {"ppl_alone": "PPL", "delta": "ΔPPL"}}
DIFFERENCES = {
    "size": "Size",
    "kl": "KL",
    "ppl": "PPL",
    "top": "Same top token",
    "verdict": "Verdict",
}
ENDLESS = "too few windows to bound it"
OTHER_TOKENS = "measured on other tokens"
UNKNOWN_TOKENS = "it is not known whether on the same tokens"
# How each outcome of the gate is said of several models.
OUTCOMES = {PASS: "passes", FAIL: "fails", INCONCLUSIVE: "cannot decide"}

Judged = GateVerdict | Missing


@dataclass(frozen=True)
class Cell:
    """A number as it is shown, with its interval below, and the text that it is of."""

    value: str
    note: str = ""
    of: str = ""

    def __str__(self) -> str:
        below = " ".join(part for part in (self.note, self.of) if part)
        return f"{self.value}\n{below}" if below else self.value


def name_sides(sides: Sequence[Side]) -> list[str]:
    """What each model is called among the others: its run, by as much of its path as tells it from
    theirs, and the model where it is not the one that is compared by default."""
    runs = shorten_specs([str(side.run.path.absolute()) for side in sides])
    return [
        run if side.model == list_models(side.record)[0] else f"{run}:{side.model}"
        for run, side in zip(runs, sides, strict=True)
    ]


def number_cells(standing: Standing) -> dict[str, Cell]:
    """A model's own numbers, by column."""
    delta, worst = standing.number("delta_ppl"), standing.number("slice_kl")
    more = "" if isinstance(delta, Missing) else write_number(delta.value, "+.3f")
    text = "" if isinstance(worst, Missing) else shorten_specs([worst.of])[0]
    return {
        "size": Cell(write_size(standing.bytes)),
        "bits": Cell(write_number(standing.bits_per_weight, ".2f")),
        "ppl": Cell(
            write_number(standing.ppl, ".3f"),
            join_written(more, _write_bounds(delta, "+.3f")) if more else "",
        ),
        "kl": _write_cell(standing.number("kl"), ".5f", standing.kl),
        "top": _write_share(standing.number("top1_agreement")),
        "p999": _write_cell(standing.number("kl_p999"), ".3f"),
        "worst": Cell(
            _write_cell(worst, ".5f").value,
            _write_bounds(worst, ".5f") if text else "",
            text,
        ),
    }


def difference_cells(one: Ranked, base: Ranked) -> dict[str, Cell]:
    """A model's numbers less the baseline's, by column; dashes on other tokens."""
    before, after = base.standing.bytes, one.standing.bytes
    size = write_number(after / before - 1, "+.1%") if before and after else NOTHING
    if one.pair is None:
        return {key: Cell(NOTHING) for key in DIFFERENCES} | {"verdict": Cell("the baseline")}
    changes = one.pair.changes
    return {
        "size": Cell(size),
        "kl": _write_cell(changes["kl"], "+.5f"),
        "ppl": _write_cell(changes["ppl"], "+.3f"),
        "top": _write_share(changes["top1_agreement"], is_difference=True),
        "verdict": Cell(write_beside(one)),
    }


def write_beside(one: Ranked) -> str:
    """Whether a model is better than the baseline, in a word or two."""
    assert one.pair is not None
    if one.pair.same_model:
        return "the same model"
    if one.pair.same_tokens is not True:
        return UNKNOWN_TOKENS if one.pair.same_tokens is None else OTHER_TOKENS
    kl = one.pair.changes["kl"]
    if isinstance(kl, Missing):
        return kl.reason
    if math.isinf(kl.low) or math.isinf(kl.high):
        return "too few windows to tell"
    if kl.low > 0:
        return "surely worse"
    return "surely better" if kl.high < 0 else "cannot be told apart"


def _write_cell(found: Finding | Missing, form: str, otherwise: float | None = None) -> Cell:
    if isinstance(found, Missing):
        return Cell(write_number(otherwise, form))
    return Cell(write_number(found.value, form), _write_bounds(found, form))


def _write_share(found: Finding | Missing, *, is_difference: bool = False) -> Cell:
    if isinstance(found, Missing):
        return Cell(NOTHING)
    value = write_points(found.value) if is_difference else write_number(found.value, ".1%")
    ends, form = (found.low, found.high), "+.1f" if is_difference else ".1f"
    return Cell(value, bound_points(ends, form) if _is_bounded(found) else ENDLESS)


def _write_bounds(found: Finding | Missing, form: str) -> str:
    if isinstance(found, Missing):
        return ""
    if not _is_bounded(found):
        return ENDLESS
    return write_interval((found.low, found.high), form)


def _is_bounded(found: Finding) -> bool:
    return not (math.isinf(found.low) or math.isinf(found.high))


def write_ranking(
    ranked: Sequence[Ranked], names: Sequence[str], judged: Sequence[Judged] | None = None
) -> list[str]:
    """Which of several models to ship, in sentences. ranked, names, judged: in the same order."""
    if len(ranked) < 2:
        return []
    base = next(index for index, one in enumerate(ranked) if one.pair is None)
    comparable = [index for index, one in enumerate(ranked) if one.is_comparable]
    finished = (index for index in comparable if ranked[index].standing.has_finished)
    best = next(finished, comparable[0])
    said = []
    if len(comparable) > 1:
        standing = ranked[best].standing
        said.append(
            f"{names[best]} loses least: KL {write_number(standing.kl, '.5f')} nats a token at "
            f"{write_size(standing.bytes)}."
        )
        ahead = comparable[: comparable.index(best)]
        if ahead:
            runs = "run has" if len(ahead) == 1 else "runs have"
            said.append(
                f"{join_words([names[index] for index in ahead])} had less when measured, but the "
                f"{runs} not finished."
            )
        behind = [index for index in comparable if index not in (*ahead, best)]
        if best == base and behind:
            said += _write_others([(names[index], ranked[index]) for index in behind])
    out = [names[index] for index in comparable if ranked[index].dominated]
    if out:
        said.append(
            f"{join_words(out)} {'is' if len(out) == 1 else 'are'} no smaller than one that loses "
            "no more."
        )
    apart = [name for name, one in zip(names, ranked, strict=True) if not one.is_comparable]
    if apart:
        said.append(
            f"{join_words(apart)} {'was' if len(apart) == 1 else 'were'} measured on other tokens "
            f"than {names[base]}: no number of {'it' if len(apart) == 1 else 'them'} can be held "
            "against the others'."
        )
    return [*said, *_write_gate(ranked, names, judged or [])]


def _write_others(others: Sequence[tuple[str, Ranked]]) -> list[str]:
    """How sure it is that others than the baseline, with their names, lose more than it."""
    alike = [(name, one) for name, one in others if not one.is_surely_worse]
    if not alike:
        return [_say_worse(len(others))]
    same = [name for name, one in alike if one.pair and one.pair.same_model]
    unsure = [name for name, _ in alike if name not in same]
    said = []
    if same:
        said.append(f"{join_words(same)} {'is' if len(same) == 1 else 'are'} the same model.")
    if unsure:
        said.append(f"It cannot be told apart from {join_words(unsure)}.")
    return said


def _say_worse(count: int) -> str:
    return "The other surely loses more." if count == 1 else "All others surely lose more."


def _write_gate(
    ranked: Sequence[Ranked], names: Sequence[str], judged: Sequence[Judged]
) -> list[str]:
    """What the gate says of all, the smallest that it lets pass, and why others are not judged."""
    by_outcome: dict[str, list[int]] = {}
    for index, verdict in enumerate(judged):
        if not isinstance(verdict, Missing):
            by_outcome.setdefault(verdict.outcome, []).append(index)
    listed = [
        f"{verb} {join_words([names[index] for index in by_outcome[outcome]])}"
        for outcome, verb in OUTCOMES.items()
        if outcome in by_outcome
    ]
    said = [f"The gate {join_words(listed)}."] if listed else []
    passing = [i for i in by_outcome.get(PASS, []) if ranked[i].standing.bytes is not None]
    if len(passing) > 1:
        smallest = min(passing, key=lambda index: ranked[index].standing.bytes or 0)
        size = write_size(ranked[smallest].standing.bytes)
        said.append(f"The smallest of those that pass is {names[smallest]}, {size}.")
    said += [
        f"{name} was not judged: {verdict.reason}."
        for name, verdict in zip(names, judged, strict=False)
        if isinstance(verdict, Missing)
    ]
    return said


def list_points(ranked: Sequence[Ranked], names: Sequence[str]) -> list[dict[str, Any]]:
    """Size and KL with its bounds, None where there is none, of the models that can be held
    against one another, as `draw_pareto` takes them."""
    points = []
    for name, one in zip(names, ranked, strict=True):
        standing, kl = one.standing, one.standing.number("kl")
        if not one.is_comparable or standing.bytes is None or standing.kl is None:
            continue
        bounds = (kl.low, kl.high) if isinstance(kl, Finding) else (-math.inf, math.inf)
        low, high = (bound if math.isfinite(bound) else None for bound in bounds)
        points.append(
            {
                "name": name,
                "bytes": standing.bytes,
                "kl": standing.kl,
                "low": low,
                "high": high,
                "dominated": one.dominated,
                "is_baseline": one.pair is None,
            }
        )
    return points


def list_json(
    ranked: Sequence[Ranked], names: Sequence[str], judged: Sequence[Judged]
) -> dict[str, Any]:
    """The ranking for scripts: what is not known or has no bound is null."""
    base = next(name for name, one in zip(names, ranked, strict=True) if one.pair is None)
    return {
        "baseline": base,
        "models": [
            {
                **list_standing(one.standing, name, verdict),
                "dominated": one.dominated,
                "difference": list_difference(one),
            }
            for name, one, verdict in zip(names, ranked, judged, strict=True)
        ],
    }


def list_standing(standing: Standing, name: str, verdict: Judged) -> dict[str, Any]:
    """A model's own numbers and the gate's verdict, for scripts."""
    measures = ("delta_ppl", "kl", "top1_agreement", "kl_p999")
    return {
        "name": name,
        "run": str(standing.side.run.path),
        "model": standing.side.model,
        "kind": name_side(standing.side),
        "created": standing.side.record.created,
        "bytes": standing.bytes,
        "bits_per_weight": standing.bits_per_weight,
        "ppl": standing.ppl,
        **{measure: list_finding(standing.number(measure)) for measure in measures},
        "worst_text": list_finding(standing.number("slice_kl")),
        "gate": None if isinstance(verdict, Missing) else verdict.outcome,
    }


def list_difference(one: Ranked) -> dict[str, Any] | None:
    """A model's numbers less the baseline's, for scripts; None for the baseline."""
    if one.pair is None:
        return None
    return {
        "same_tokens": one.pair.same_tokens,
        "same_model": one.pair.same_model or None,
        **{name: list_finding(found) for name, found in one.pair.changes.items()},
    }


def list_finding(found: Finding | Missing) -> dict[str, Any] | None:
    """A number with its bounds, and the text that it is of, for scripts."""
    if isinstance(found, Missing):
        return None
    entries: Mapping[str, float] = {"value": found.value, "low": found.low, "high": found.high}
    shown: dict[str, Any] = {
        key: value if math.isfinite(value) else None for key, value in entries.items()
    }
    return shown | ({"of": found.of} if found.of else {})
