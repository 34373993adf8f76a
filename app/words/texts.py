"""Which text a run's window is from, by a name that is short and still tells them apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from awqscope.diagnose.runs.record import AnyRecord


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
