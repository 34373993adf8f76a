"""What more bytes would buy, where promoting what stands out gives back little of the damage."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from awqscope.diagnose.entries.headline import Headline
from awqscope.diagnose.runs.record import AnyRecord, Record
from awqscope.diagnose.runs.scores import read_scores
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.solver import solve
from awqscope.mixedprec.words import write_number, write_share

# A recipe that gives back less leaves most of the damage where it is.
ENOUGH = 0.5
# What is offered: the least bytes for each of these recoveries.
RECOVERIES = (0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Offer:
    """A recipe that a run could have. recovered: predicted share of the lost KL. more: its size
    over the uniform model's, less 1. bits_per_weight: of the units, scales counted. command: what
    makes its checkpoint and proves it."""

    recovered: float
    more: float
    bits_per_weight: float
    command: str


def list_offers(record: AnyRecord, path: Path, called: str | None = None) -> list[Offer]:
    """What more bytes would buy in the finished run at `path`; nothing where its recipe gives back
    enough, and where its units have no scores. called: what commands call the run, None for its
    path."""
    headline = record.headline
    if not isinstance(record, Record) or not isinstance(headline, Headline):
        return []
    had = headline.recovered or 0.0
    if record.state != "done" or had >= ENOUGH or record.spec.budget or headline.kl.uniform <= 0:
        return []
    try:
        scores = read_scores(path)
    except InputError:
        return []
    offers = []
    for recovery in RECOVERIES:
        if recovery <= had:
            continue
        try:
            recipe = solve(scores, min_recovery=recovery)
        except InputError:
            # Nothing gives back so much.
            break
        found = scores.predict(recipe.widths)
        more = found.bytes / headline.bytes.uniform - 1
        command = _write_command(called or str(path), recovery)
        offers.append(Offer(found.recovered, more, found.bits_per_weight, command))
    return offers


def _write_command(called: str, recovery: float) -> str:
    name, run = f"recover-{100 * recovery:.0f}", shlex.quote(called)
    return (
        f"awqscope recipe {run} --min-recovery {100 * recovery:.0f}% -o {name}.json && "
        f"awqscope requantize {run} --recipe {name}.json --out {name} --prove"
    )


# The columns of a table of offers, and its rows.
COLUMNS = {"recovered": "Gives back", "more": "In size", "bits": "Bits a weight", "command": "How"}


def offer_rows(offers: Sequence[Offer]) -> list[dict[str, str]]:
    """A row an offer, under COLUMNS."""
    return [
        {
            "recovered": write_share(each.recovered, ".0%"),
            "more": write_number(each.more, "+.1%"),
            "bits": write_number(each.bits_per_weight, ".2f"),
            "command": each.command,
        }
        for each in offers
    ]


def write_offers(offers: Sequence[Offer]) -> str:
    """What the offers come to, in a sentence."""
    bought = ", ".join(
        f"{write_share(each.recovered, '.0%')} for {write_number(each.more, '+.1%')} in size"
        for each in offers
    )
    return f"The damage is spread; more bytes would give back (predicted) {bought}."
