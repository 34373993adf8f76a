"""Numbers and tokens as a person reads them: the same in the dashboard and in reports."""

import re
from collections.abc import Sequence

# Words that a message may begin with and that are no names.
OPENINGS = re.compile(
    "(a|all|an|both|each|every|give|it|its|more|neither|no|none|not|of|one|only|some|that|the|their"
    "|there|these|this|those|to|two|what|where|with|without) "
)


def number(value: float | None, form: str = ".4g") -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else format(value, form).replace("-", "−")


def interval(bounds: Sequence[float | None] | None, form: str = ".4g") -> str:
    """[low, high], or nothing."""
    if bounds is None or None in bounds:
        return ""
    return f"[{', '.join(number(bound, form) for bound in bounds)}]"


def megabytes(count: float | None) -> str:
    """Bytes in units a person reads."""
    if count is None:
        return "–"
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.2f} MB"


def share(value: float | None, form: str = ".1%") -> str:
    """A share in percent."""
    return number(value, form)


def points(difference: float | None) -> str:
    """A difference of two shares, in percentage points."""
    return "–" if difference is None else f"{number(100 * difference, '+.1f')} points"


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
