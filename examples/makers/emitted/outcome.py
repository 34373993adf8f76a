"""What a tool made of a recipe that was emitted for it, held against the recipe, and the table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from examples.makers.shared.page import SECOND, make_table
from examples.makers.shared.table import Measured

HEADINGS = (
    "target",
    "tool",
    "recipe of a run that is",
    "linears by bits",
    "PPL, 16 bits",
    "PPL",
    "KL",
    "PPL, ours",
    "KL, ours",
    "verdict",
)
PLAIN = 16
# The same windows under the same 16-bit model: only how float32 is summed may differ.
SAME_TEXT = 1e-4


@dataclass(frozen=True)
class Outcome:
    """A recipe as a tool carried it out.

    scheme: of the run that the recipe is of. tool: with its version. found: linears by width.
    theirs, ours: the tool's checkpoint, and the one that the run wrote by the same recipe. unable:
    why the tool cannot run here; None where it did. fault: what went wrong, in a line.
    """

    target: str
    scheme: str
    tool: str = "–"
    found: Mapping[str, int] = field(default_factory=dict)
    theirs: Measured | None = None
    ours: Measured | None = None
    unable: str | None = None
    fault: str | None = None


def count_widths(recipe: Mapping[str, int], packed: Mapping[str, int]) -> dict[str, int]:
    """The recipe's linears by the width that they have in a checkpoint. packed: name -> bits of
    all that is quantized there."""
    found = Counter(packed.get(linear, PLAIN) for linear in recipe)
    return {str(bits): found[bits] for bits in sorted(found)}


def find_stray(recipe: Mapping[str, int], packed: Mapping[str, int]) -> str | None:
    """The first linear, or other module, whose width is not the recipe's, in words; None where all
    are. What the recipe does not name is to be at 16 bits."""
    for name in dict.fromkeys([*recipe, *packed]):
        wanted, found = recipe.get(name, PLAIN), packed.get(name, PLAIN)
        if wanted != found:
            return f"{name} is at {found} bits, not {wanted}"
    return None


def read_run(record: Mapping[str, Any]) -> Measured:
    """The numbers of a run's own mixed checkpoint, in its run.json."""
    headline = record["headline"]
    ppl = headline["ppl"]
    return Measured(ppl["reference"], ppl["mixed"], headline["kl"]["mixed"])


def find_other_text(theirs: Measured, ours: Measured) -> str | None:
    """A line where two checkpoints were not measured on the same windows; None where they were."""
    if abs(theirs.reference / ours.reference - 1) <= SAME_TEXT:
        return None
    return f"16 bits come to {theirs.reference:.3f} here and to {ours.reference:.3f} in the run"


def list_cells(outcome: Outcome) -> list[str]:
    """A row of the table, a text a column."""
    numbers = ["–"] * 5
    if outcome.theirs and outcome.ours:
        theirs = f"{outcome.theirs.ppl:.3f}", f"{outcome.theirs.kl:.5f}"
        ours = f"{outcome.ours.ppl:.3f}", f"{outcome.ours.kl:.5f}"
        numbers = [f"{outcome.theirs.reference:.3f}", *theirs, *ours]
    found = ", ".join(f"{count} at {bits}" for bits, count in outcome.found.items()) or "–"
    verdict = outcome.fault or outcome.unable or "every linear as the recipe says"
    return [outcome.target, outcome.tool, outcome.scheme, found, *numbers, verdict]


def write_part(outcomes: Sequence[Outcome], about: Sequence[str]) -> str:
    """The part of the page: what it is about, in lines, and a table."""
    lines = [
        SECOND,
        "",
        *[f"- {line}" for line in about],
        "",
        "awqscope chose the widths and wrote them by `awqscope recipe RUN --emit TARGET`; the tool",
        "quantized by that text, in an environment of its own and by its own method, and",
        "`awqscope compare` read what came out, on the run's windows. Ours is the run's own mixed",
        "checkpoint: AWQ, calibrated on as many windows, which are longer.",
        "Few texts were calibrated on and few windows measured: this is no verdict on a tool.",
        "",
        *make_table(HEADINGS, map(list_cells, outcomes)),
    ]
    return "\n".join(lines) + "\n"


def to_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON holds it."""
    return asdict(outcome)


def from_json(found: Mapping[str, Any]) -> Outcome:
    """What `to_json` wrote."""
    measured = {name: found[name] and Measured(**found[name]) for name in ("theirs", "ours")}
    return Outcome(**{**found, **measured})
