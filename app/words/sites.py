"""Where activations are looked at in a block: in which order, and where first."""

from collections.abc import Mapping, Sequence
from typing import Any

from awqscope.diagnose.runs.record import AnyRecord

OUTPUT = "output"

Row = Mapping[str, Any]


def order_kinds(record: AnyRecord, kinds: Sequence[str]) -> list[str]:
    """The kinds of units in the order of the model's family, the block's output after them; kinds
    that the record does not know come last, as they came."""
    known = [*record.source.units, OUTPUT]
    order = {kind: number for number, kind in enumerate(known)}
    return sorted(dict.fromkeys(kinds), key=lambda kind: order.get(kind, len(order)))


def name_site(site: str) -> str:
    """What is looked at there."""
    return site if site == OUTPUT else f"into {site}"


def choose_site(sites: Sequence[str], worst: Sequence[Row], activations: Sequence[Row]) -> str:
    """The site of a block to look at first: of the unit that costs most; where units have no KL of
    their own, the one with the largest error; else the first of `sites`.

    worst: the block's quantized units, the largest KL first. activations: its rows of
    activations.parquet.
    """
    guilty = [row["kind"] for row in worst if row["kind"] in sites]
    if guilty:
        return guilty[0]
    errors = {
        row["site"]: row["relative_mse"]
        for row in activations
        if row["site"] in sites and row["relative_mse"] is not None
    }
    return max(errors, key=errors.__getitem__) if errors else sites[0]
