"""The texts that a run was measured on: which of them a window is from, by a name that is short and
still tells them apart, and on how many windows blocks were measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from awqscope.diagnose.runs.record import AnyRecord
from awqscope.mixedprec.words import write_number, write_share

# From how many times narrower an interval is worth a word.
SOME_NARROWER = 1.1


@dataclass(frozen=True)
class TextNames:
    """The texts that a run was measured on, in order: where their windows begin, and what they are
    called."""

    firsts: Sequence[int]
    names: Sequence[str]

    def of(self, window: int) -> str:
        """The name of the text that a window is from."""
        before = [
            name for first, name in zip(self.firsts, self.names, strict=True) if first <= window
        ]
        return before[-1] if before else self.names[0]


def name_texts(record: AnyRecord) -> TextNames:
    """The texts of a run. A path goes by its end, as much of it as no other text has."""
    definition = record.ppl_definition
    if not definition.slices:
        return TextNames([0], shorten_specs([definition.text]))
    firsts = [part.first_window for part in definition.slices]
    return TextNames(firsts, shorten_specs([part.text for part in definition.slices]))


def shorten_specs(specs: Sequence[str]) -> list[str]:
    """The ends of paths, as many parts of each as tell them apart; `hub:` names and the like as
    they are."""
    for parts in range(1, 1 + max((spec.count("/") for spec in specs), default=0)):
        names = [_end(spec, parts) for spec in specs]
        if len(set(names)) == len(set(specs)):
            return names
    return list(specs)


def _end(spec: str, parts: int) -> str:
    return spec if spec.startswith("hub:") else "/".join(PurePath(spec).parts[-parts:]) or spec


def write_sample(record: AnyRecord) -> str:
    """On how many windows blocks were measured, in words; empty where on all."""
    sweep = record.sweep
    if sweep is None or sweep.looks is None:
        return ""
    first, last = sweep.looks[0], sweep.looks[-1]
    count = f"{last:,}" if first == last else f"{first:,} to {last:,}"
    said = f"measured on {count} of {record.ppl_definition.windows:,} windows, drawn at random"
    said += "" if record.spec.sweep_windows == last else ", until every flag was sure"
    if sweep.isolated_error is not None:
        known = write_share(sweep.isolated_error)
        said += f"; what all cost alone, together, is known to ±{known}"
        if sweep.narrowed is not None and sweep.narrowed >= SOME_NARROWER:
            times = write_number(sweep.narrowed, ".1f")
            said += f", {times} times narrower by the uniform KL of every window"
    return said
