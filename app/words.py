"""Numbers and tokens as a person reads them: the same in the dashboard and in reports."""

from collections.abc import Sequence


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


# Where a message begins with a name, its letters are the name's.
OPENERS = frozenset(("a", "an", "it", "no", "none", "nobody", "nothing", "that", "the", "there"))


def write_sentence_start(said: str) -> str:
    """A message as a sentence begins, but for a name at its start: "there is no text" gets its
    capital, "wikitext2:test cannot be loaded" stays as it is."""
    return said[:1].upper() + said[1:] if said.partition(" ")[0] in OPENERS else said


def show_token(text: str) -> str:
    """A token's text with its blanks made visible."""
    return text.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "·") or "∅"


def show_line_ends(text: str) -> str:
    """Line ends stay line ends, and are seen."""
    return text.replace("\n", "⏎\n") or "∅"


def reads_as_number(text: str) -> bool:
    """Whether a cell begins like a number, and is set as one."""
    return text[:1] in "0123456789+-−–[" and text != ""
