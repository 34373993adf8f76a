"""Tokens, sentences and paths as a person reads them: the same in the dashboard and in reports."""

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

# Words that a message may begin with and that are no names.
OPENINGS = re.compile(
    "(a|all|an|both|each|every|give|it|its|more|neither|no|none|not|of|one|only|some|that|the|their"
    "|there|these|this|those|to|two|what|where|with|without) "
)


class Tile(NamedTuple):
    """A headline number. tone: `good` or none."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


def begin_sentence(text: str) -> str:
    """`text` with a capital, unless its first word may be a name: names keep their letters."""
    return text[:1].upper() + text[1:] if OPENINGS.match(text) else text


def show_token(text: str) -> str:
    """A token's text with its blanks made visible."""
    return text.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·") or "∅"


def show_line_ends(text: str) -> str:
    """Line ends stay line ends, and are seen."""
    return text.replace("\n", "⏎\n") or "∅"


def reads_as_number(text: str) -> bool:
    """Whether a cell begins like a number, and is set as one."""
    return text[:1] in "0123456789+-−–[" and text != ""


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


def tell_apart(names: Sequence[str]) -> dict[str, str]:
    """name -> the end of it by which it is known among the others: paths begin alike. What has two
    parts, as ids on the hub have, stays whole."""
    parts = {name: PurePath(name).parts or ("",) for name in names}
    ends: dict[str, str] = {}
    for name, own in parts.items():
        others = [other for each, other in parts.items() if each != name]
        alike = [_count_alike(own, other) for other in others]
        least = 2 if len(own) == 2 else 1
        ends[name] = "/".join(own[-max(least, max(alike, default=0) + 1) :]).replace("//", "/")
    return ends


def _count_alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many of their last parts are the same."""
    count = 0
    for mine, theirs in zip(reversed(one), reversed(other), strict=False):
        if mine != theirs:
            break
        count += 1
    return count
