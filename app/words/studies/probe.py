"""What a probe found, in words: the same in the terminal and on a block's page."""

from typing import Any

from awqscope.app.words.verdict import write_kl
from awqscope.diagnose.entries.part import Bounded
from awqscope.diagnose.studies.probes.answer import HELPS, UNSURE, WORSE, BlockProbe, Measured
from awqscope.mixedprec.words import (
    Written,
    join_words,
    write_bounded,
    write_number,
    write_share,
    write_size,
)

TITLE = "What would help"
SUMMARY = (
    "Alternatives to this block at the run's low width, each searched for it alone and measured in "
    "its place: alone, and in the quantized model."
)
COLUMNS = {
    "what": "Alternative",
    "restored": "KL given back [95%]",
    "isolated": "KL given back alone [95%]",
    "bytes": "Bytes",
    "bits": "Bits a weight",
    "price": "KL given back a MB",
    "verdict": "",
}
NAMED = "Named in the chart is what gives back more than anything of fewer bytes."
# What is given back may be a millionth of a nat as well as one.
DIGITS = ".3g"
VERDICTS = {HELPS: "● helps", UNSURE: "○ not sure", WORSE: "✕ worse than nothing"}


def list_points(probe: BlockProbe) -> list[dict[str, Any]]:
    """The alternatives as the chart takes them."""
    return [
        {
            "name": each.name,
            "bytes": each.extra_bytes,
            "gain": each.restored_gain[0],
            "gain_low": each.restored_gain[1],
            "gain_high": each.restored_gain[2],
            "verdict": each.verdict,
        }
        for each in probe.alternatives
    ]


def write_scheme(probe: BlockProbe) -> str:
    """The block as the run has it: `4 bits in groups of 64`."""
    groups = "with a group a row" if probe.group_size < 0 else f"in groups of {probe.group_size}"
    return f"{probe.bits} bits {groups}{', symmetric' if probe.symmetric else ''}"


def write_gain(gain: Bounded) -> str:
    """KL given back with its interval."""
    return write_bounded(gain[0], gain[1:], DIGITS)


def write_finding(probe: BlockProbe) -> str:
    """What helps most, in a few sentences."""
    paid, free = find_best(probe)
    said = [write_basis(probe)]
    if paid is not None:
        said.append(f"Most a byte: {_write_offer(probe, paid)}.")
    if free is not None:
        said.append(f"For no bytes: {_write_offer(probe, free)}.")
    if paid is None and free is None:
        said.append("Nothing that was tried helps for sure.")
    worse = [each.what for each in probe.alternatives if each.verdict == WORSE]
    if worse:
        said.append(f"Worse than nothing: {join_words(worse)}.")
    return " ".join(said)


def find_best(probe: BlockProbe) -> tuple[Measured | None, Measured | None]:
    """What helps most a byte, and what helps most of that which costs none; None where nothing is
    sure to."""
    helping = [each for each in probe.alternatives if each.verdict == HELPS]
    paid = (each for each in helping if each.gain_per_megabyte is not None)
    free = (each for each in helping if each.gain_per_megabyte is None)
    return next(paid, None), next(free, None)


def write_basis(probe: BlockProbe) -> str:
    """What everything is set against."""
    flagged = ", which the run flagged," if probe.flagged else ""
    return (
        f"Block {probe.block}{flagged} at {write_scheme(probe)} costs a KL of "
        f"{write_kl(probe.isolated[0], 5)} nats a token alone; the uniform model costs "
        f"{write_kl(probe.uniform[0], 5)}."
    )


def _write_offer(probe: BlockProbe, each: Measured) -> str:
    """An alternative, and what it gives back."""
    value, low, high = (write_share(gain / probe.uniform[0]) for gain in each.restored_gain)
    cost = f" for {write_size(each.extra_bytes, signed=True)}" if each.extra_bytes else ""
    return f"{each.what}, {value} of the uniform model's KL given back ({low} to {high}){cost}"


def probe_rows(probe: BlockProbe) -> list[dict[str, str]]:
    """A line an alternative, in the answer's order, with its `name`."""
    return [
        {
            "name": each.name,
            "what": each.what,
            "restored": write_gain(each.restored_gain),
            "isolated": write_gain(each.isolated_gain),
            "bytes": _write_bytes(each.extra_bytes),
            "bits": write_number(each.bits_per_weight, ".3f"),
            "price": write_number(each.gain_per_megabyte, DIGITS),
            "verdict": VERDICTS[each.verdict],
        }
        for each in probe.alternatives
    ]


def _write_bytes(count: int) -> str:
    """What an alternative takes more, or that it takes none."""
    return write_size(count, signed=True) if count else Written("none", 0)


def write_refused(probe: BlockProbe) -> list[str]:
    """What could not be tried, and why, a sentence each."""
    return [f"Not tried: {each.what} ({each.why})." for each in probe.refused]


def write_windows(probe: BlockProbe) -> str:
    """What it was measured on."""
    count = len(probe.windows)
    which = "all" if count == probe.of_windows else f"{count} of the"
    return (
        f"Measured on {which} {probe.of_windows} windows of the run's text "
        f"({probe.scored_tokens:,} tokens); intervals are paired by token with the block as the "
        "run has it."
    )


def write_way(each: Measured) -> str:
    """What makes an alternative of a model, where no recipe holds it."""
    return f"awqscope run {each.options}" if each.options else "no option of a run"


def write_applying(probe: BlockProbe, each: Measured) -> str:
    """The command that makes a recipe of an alternative."""
    return f"awqscope probe RUN {probe.block} --apply {each.name}"
