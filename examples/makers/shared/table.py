"""What a maker says of a checkpoint, held against what `compare` measured, and the
table of both."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from examples.makers.shared.page import TITLE, make_table

# How far the two perplexities may be apart, relative to the tool's own, by how that was taken: a
# model loaded from disk is the same weights, one in memory is rounded once more as it is written.
TOLERANCES: Mapping[str, float] = {
    "loaded by transformers": 0.002,
    "in memory before export": 0.01,
}
OTHERWISE = 0.01
HEADINGS = (
    "maker",
    "variant",
    "format",
    "bits",
    "PPL, 16 bits",
    "PPL",
    "KL",
    "PPL, tool's own",
    "how that was taken",
    "verdict",
)


@dataclass(frozen=True)
class Said:
    """The last line of a maker's script. nll: of the windows under the tool's own model, in nats a
    token; None where it cannot run that here. how: how it was taken. unable: why the tool cannot
    make this variant here; None where it did."""

    maker: str
    variant: str
    format: str
    nll: float | None = None
    how: str = ""
    unable: str | None = None


@dataclass(frozen=True)
class Measured:
    """What `awqscope compare` says of a checkpoint. bits: linears by width."""

    reference: float
    ppl: float
    kl: float
    bits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A variant: what its maker said, and what was measured. fault: what went wrong, in a line;
    None where nothing did."""

    said: Said
    measured: Measured | None = None
    fault: str | None = None


def read_last(output: str) -> Said:
    """What a script said in its last line. ValueError where that is no such thing."""
    lines = output.strip().splitlines()
    found = json.loads(lines[-1]) if lines else None
    if not isinstance(found, dict):
        raise ValueError("the last line is no JSON object")
    known = {name: found[name] for name in Said.__dataclass_fields__ if name in found}
    try:
        said = Said(**known)
    except TypeError as error:
        raise ValueError(f"the last line lacks entries ({error})") from error
    if said.nll is not None and not math.isfinite(said.nll):
        raise ValueError(f"the mean negative log likelihood is {said.nll}")
    return said


def read_measured(record: Mapping[str, Any]) -> Measured:
    """The numbers in the run.json of a comparison."""
    headline = record["headline"]
    ppl = headline["ppl"]
    bits = record["candidate"]["bits"]
    return Measured(ppl["reference"], ppl["candidate"], headline["kl"]["candidate"], bits)


def tolerance(how: str) -> float:
    """How far two perplexities may be apart, relative to the tool's own."""
    return next((TOLERANCES[start] for start in TOLERANCES if how.startswith(start)), OTHERWISE)


def judge(said: Said, measured: Measured) -> Row:
    """The row of a checkpoint that both have measured; a fault where they differ."""
    if said.nll is None:
        return Row(said, measured)
    own = math.exp(said.nll)
    apart, allowed = abs(measured.ppl / own - 1), tolerance(said.how)
    if apart <= allowed:
        return Row(said, measured)
    return Row(said, measured, f"{apart:.2%} apart, {allowed:.2%} allowed")


def list_cells(row: Row) -> list[str]:
    """A row of the table, a text a column."""
    said, measured = row.said, row.measured
    numbers = ["–"] * 4
    if measured is not None:
        widths = "/".join(sorted(measured.bits, key=int))
        three = f"{measured.reference:.3f}", f"{measured.ppl:.3f}", f"{measured.kl:.5f}"
        numbers = [widths, *three]
    own = "–" if said.nll is None else f"{math.exp(said.nll):.3f}"
    agrees = "agrees" if measured and said.nll is not None else "not run here"
    if measured and said.nll is None:
        agrees = "read; nothing to hold it to"
    verdict = row.fault or said.unable or agrees
    return [said.maker, said.variant, said.format, *numbers, own, said.how or "–", verdict]


def write_part(rows: Sequence[Row], about: Sequence[str]) -> str:
    """The part of the page: what it is about, in lines, and a table of the rows."""
    limits = ", ".join(f"{how}: {allowed:.1%}" for how, allowed in TOLERANCES.items())
    lines = [
        TITLE,
        "",
        *[f"- {line}" for line in about],
        "",
        "Each tool quantized the same model in an environment of its own, said the perplexity of",
        "its own model on the windows, and left a checkpoint, which `awqscope compare` measured.",
        f"The two may be apart by ({limits}, otherwise {OTHERWISE:.1%}).",
        "",
        *make_table(HEADINGS, map(list_cells, rows)),
    ]
    return "\n".join(lines) + "\n"


def to_json(row: Row) -> dict[str, Any]:
    """A row as JSON holds it."""
    return asdict(row)


def from_json(found: Mapping[str, Any]) -> Row:
    """What `to_json` wrote."""
    measured = found["measured"]
    return Row(Said(**found["said"]), measured and Measured(**measured), found["fault"])
