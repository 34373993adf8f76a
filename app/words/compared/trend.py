"""What is said of one model over its releases: what is newly broken from one to the next, and what
was mended."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from awqscope.app.words.compared.many_models import Judged, list_finding, list_standing
from awqscope.app.words.compared.two_models import different_settings
from awqscope.app.words.numbers import show_token
from awqscope.diagnose.compared.changes import CostChange, Step, TokenChanges
from awqscope.diagnose.compared.standing import Standing
from awqscope.diagnose.gate.findings import Finding, Missing
from awqscope.mixedprec.words import (
    bound_points,
    join_words,
    write_bounded,
    write_number,
    write_points,
    write_share,
    write_size,
)

# A number and its bounds, None where there is none.
Bounded = tuple[float | None, float | None, float | None]
# So many blocks and units are named in a sentence.
MOST_NAMED = 6

COST_COLUMNS = {
    "of": "Block or unit",
    "what": "What happened",
    "before": "KL before",
    "after": "KL now",
    "difference": "Difference",
}
# What is drawn over the releases: label, and what it is multiplied by.
DRAWN = {
    "kl": ("KL (nats a token)", 1.0),
    "delta_ppl": ("ΔPPL", 1.0),
    "top1_agreement": ("same top token (%)", 100.0),
    "size": ("size (MB)", 1e-6),
}
# How the same is written in a table.
FORMS = {"kl": ".5f", "delta_ppl": "+.3f", "top1_agreement": ".1%"}
POINT_COLUMNS = {
    "kl": "KL (nats a token)",
    "delta_ppl": "ΔPPL",
    "top1_agreement": "Same top token",
    "size": "Size",
}
# Losses, which are seen as such beside none at all.
FROM_ZERO = ("kl", "delta_ppl")
TOKEN_COLUMNS = {"text": "Token", "passage": "Passage", "before": "KL before", "after": "KL now"}


def read_point(standing: Standing, measure: str) -> Bounded:
    """A number of a release with its bounds, as it is drawn."""
    factor = DRAWN[measure][1]
    value, low, high = (
        None if end is None else factor * end for end in _find_point(standing, measure)
    )
    return value, low, high


def _find_point(standing: Standing, measure: str) -> Bounded:
    if measure == "size":
        return standing.bytes, None, None
    found = standing.number(measure)
    if isinstance(found, Missing):
        return (standing.kl if measure == "kl" else None, None, None)
    low, high = (bound if math.isfinite(bound) else None for bound in (found.low, found.high))
    return found.value, low, high


def point_row(standing: Standing) -> dict[str, str]:
    """What is drawn of a release as a line of a table, under POINT_COLUMNS."""
    found = {measure: _find_point(standing, measure) for measure in FORMS}
    cells = {key: write_bounded(found[key][0], found[key][1:], form) for key, form in FORMS.items()}
    return cells | {"size": write_size(standing.bytes)}


def write_step(step: Step) -> list[str]:
    """What changed from one release to the next, in sentences."""
    if step.pair.same_model:
        return [f"They are the same model: {step.pair.same_model}."]
    if step.pair.same_tokens is not True:
        assert isinstance(step.tokens, Missing)
        return [f"What changed cannot be told: {step.tokens.reason}."]
    return [
        write_change(step),
        write_costs(step.blocks, "block"),
        write_costs(step.units, "unit"),
        write_tokens(step.tokens),
    ]


def write_change(step: Step) -> str:
    """Whether the later release is better, with the numbers that say it."""
    kl, top = step.pair.changes["kl"], step.pair.changes["top1_agreement"]
    if isinstance(kl, Missing) or isinstance(top, Missing):
        return "Whether it is better cannot be told."
    found = "Surely worse" if kl.low > 0 else "Surely better" if kl.high < 0 else "Not surely other"
    said = f"{found}: KL {write_bounded(kl.value, (kl.low, kl.high), '+.5f')}"
    points = bound_points((top.low, top.high))
    said += f", same top token {write_points(top.value)} {points}"
    before, after = (side.record.measured.bytes.of(side.model) for side in (step.a, step.b))
    if before and after:
        said += f", size {write_number(after / before - 1, '+.1%')} ({write_size(after)})"
    return f"{said}."


def split_costs(changes: Sequence[CostChange]) -> tuple[list[CostChange], list[CostChange]]:
    """Those that are newly broken, and those that were mended."""
    broken = [each for each in changes if each.difference > 0]
    return broken, [each for each in changes if each.difference < 0]


def write_costs(changes: Sequence[CostChange] | Missing, kind: str) -> str:
    """Which blocks or units are newly broken and which were mended. kind: block or unit."""
    if isinstance(changes, Missing):
        return f"{kind.capitalize()}s cannot be set side by side: {changes.reason}."
    broken, mended = split_costs(changes)
    return (
        f"{kind.capitalize()}s newly broken: {_name_costs(broken)}; mended: {_name_costs(mended)}."
    )


def _name_costs(changes: Sequence[CostChange]) -> str:
    if not changes:
        return "none"
    named = [f"{each.of} ({write_number(each.difference, '+.5f')})" for each in changes]
    more = [f"{len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
    return join_words([*named[:MOST_NAMED], *more])


def write_tokens(tokens: TokenChanges | Missing) -> str:
    """How many tokens lost their top token, and how many have it again."""
    if isinstance(tokens, Missing):
        return f"Tokens cannot be set side by side: {tokens.reason}."
    return (
        f"Of {tokens.scored:,} tokens {tokens.broken:,} "
        f"({write_share(tokens.broken / tokens.scored)}) are newly broken and {tokens.mended:,} "
        f"({write_share(tokens.mended / tokens.scored)}) were mended: their likeliest next token "
        "was the reference's before and is not now, and the other way round."
    )


def cost_rows(step: Step) -> list[dict[str, str]]:
    """Blocks, then units, that are newly broken or were mended, as lines of a table."""
    found: list[dict[str, str]] = []
    if step.pair.same_model:
        return found
    for kind, changes in (("block", step.blocks), ("unit", step.units)):
        if isinstance(changes, Missing):
            continue
        for each in changes:
            bounds = (each.low, each.high)
            found.append(
                {
                    "of": f"{kind} {each.of}",
                    "what": "newly broken" if each.difference > 0 else "mended",
                    "before": write_number(each.before, ".5f"),
                    "after": write_number(each.after, ".5f"),
                    "difference": write_bounded(each.difference, bounds, "+.5f"),
                }
            )
    return found


def write_passage(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """What stands before a token, itself, and behind it, each with its line ends seen."""
    before, after = (row[key].replace("\n", "⏎") for key in ("before", "after"))
    return before, show_token(row["text"]), after


def write_settings(step: Step) -> str:
    """What else is other than in the release before, by name."""
    named = [row["what"] for row in different_settings(step.a, step.b)]
    return f"Other than before: {join_words(named)}." if named else ""


def trend_json(
    standings: Sequence[Standing],
    names: Sequence[str],
    judged: Sequence[Judged],
    steps: Sequence[Step],
) -> dict[str, Any]:
    """A trend for scripts: its releases, and what changed from each to the next."""
    return {
        "releases": [list_standing(*each) for each in zip(standings, names, judged, strict=True)],
        "steps": [
            step_json(step, *pair)
            for step, pair in zip(steps, itertools.pairwise(names), strict=True)
        ],
    }


def step_json(step: Step, before: str, after: str) -> dict[str, Any]:
    """A step for scripts: what is not known is null."""
    return {
        "from": before,
        "to": after,
        "same_tokens": step.pair.same_tokens,
        "same_model": step.pair.same_model or None,
        "difference": {name: list_finding(found) for name, found in step.pair.changes.items()},
        "threshold_kl": step.threshold,
        "blocks": _list_costs(step.blocks),
        "units": _list_costs(step.units),
        "tokens": None
        if isinstance(step.tokens, Missing)
        else {
            "scored": step.tokens.scored,
            "newly_broken": step.tokens.broken,
            "mended": step.tokens.mended,
            "worst": [dict(row) for row in step.tokens.worst],
            "best": [dict(row) for row in step.tokens.best],
        },
    }


def _list_costs(changes: Sequence[CostChange] | Missing) -> dict[str, Any] | None:
    if isinstance(changes, Missing):
        return None
    return {
        name: [
            {
                "of": each.of,
                "before": each.before,
                "after": each.after,
                **(list_finding(Finding(each.difference, each.low, each.high)) or {}),
            }
            for each in found
        ]
        for name, found in zip(("newly_broken", "mended"), split_costs(changes), strict=True)
    }
