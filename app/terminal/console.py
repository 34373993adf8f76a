"""What goes to a terminal: text of a run or a model must not steer it."""

import unicodedata
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# Other, control; other, format (which turns the direction of writing); halves of characters.
HIDDEN = {"Cc", "Cf", "Cs"}
# Joiners that scripts and emoji need.
HARMLESS = {"\n", "\t", "\u200c", "\u200d"}


def show_controls(text: str) -> str:
    """`text` with every control character written out, as in \\x1b; line ends and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in HIDDEN and char not in HARMLESS
        else char
        for char in text
    )


class PlainConsole(Console):
    """rich's console, which styles text and lets through no control character of the text's own.
    Brackets and colons in a text are only that: no name becomes a style or an emoji."""

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As rich's, with the text of every segment made harmless."""
        for segment in super().render(renderable, options):
            text: Any = segment.text
            if segment.control:
                yield segment
            else:
                yield Segment(show_controls(text), segment.style)
