"""The terms as a page of the guides, and as lines for a terminal."""

import difflib
import textwrap
from collections.abc import Sequence

from awqscope.app.words.terms.table import TERMS, Term
from awqscope.mixedprec.errors import InputError

WIDTH = 100
HEAD = """# The terms

Every word here means one thing in the code, on the command line, in files and on pages.

"""


def write_guide() -> str:
    """examples/guides/glossary.md."""
    return HEAD + "".join(f"{_fill(f'- **{each.name}**: {each.meaning}')}\n" for each in TERMS)


def write_terms(words: Sequence[str]) -> str:
    """The terms asked for, or all, for a terminal. InputError for a word that is none."""
    found = [find_term(word) for word in words] or list(TERMS)
    return "\n".join(_fill(f"{each.name}: {each.plain}") for each in found)


def find_term(word: str) -> Term:
    """The term of that name or spelling. InputError where there is none."""
    spelt: dict[str, Term] = {}
    for term in TERMS:
        for name in (*term.name.split(", "), *term.spellings):
            spelt.setdefault(name.lower(), term)
    wanted = word.lower()
    for each in (wanted, wanted.removesuffix("s")):
        if each in spelt:
            return spelt[each]
    near = difflib.get_close_matches(wanted, spelt, n=1)
    remedy = f"did you mean {near[0]}?" if near else "awqscope terms lists them all"
    raise InputError(f"there is no term {word!r}", remedy)


def _fill(text: str) -> str:
    return textwrap.fill(
        text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
