"""Which text a run's window is from, by a name that is short and still tells them apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any


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


def name_texts(record: Mapping[str, Any]) -> TextNames:
    """The texts of a run. A path goes by its end, as much of it as no other text has."""
    definition = record["ppl_definition"]
    whole = {"text": definition.get("text", ""), "first_window": 0}
    slices = definition.get("slices") or [whole]
    specs = [str(part["text"]) for part in slices]
    return TextNames([part["first_window"] for part in slices], shorten_specs(specs))


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
