"""Where a text uses a term, so that its meaning can be shown beside it."""

import re
from collections.abc import Iterable, MutableSet
from dataclasses import dataclass
from functools import cache

from awqscope.app.words.terms.table import TERMS, Term


@dataclass(frozen=True)
class Spot:
    """A term in a text. word: as it stands there."""

    word: str
    term: Term


def split_terms(text: str, told: MutableSet[str]) -> list[str | Spot]:
    """A text in pieces, its terms apart. told: names of terms that have been explained already and
    stay plain text; those that are found are added."""
    pieces: list[str | Spot] = []
    at = 0
    for match in _pattern().finditer(text):
        term = _by_spelling()[_normalise(match["word"])]
        if term.name in told:
            continue
        told.add(term.name)
        if match.start() > at:
            pieces.append(text[at : match.start()])
        pieces.append(Spot(match[0], term))
        at = match.end()
    return [*pieces, text[at:]] if text[at:] or not pieces else pieces


def list_terms(texts: Iterable[str]) -> list[Term]:
    """The terms that texts use, in the order of the glossary."""
    told: set[str] = set()
    for text in texts:
        split_terms(text, told)
    return [term for term in TERMS if term.name in told]


def _normalise(word: str) -> str:
    """A spelling as it is looked up: of words, not of signs such as KL, capitals do not count."""
    return word if word in _signs() else word.lower()


@cache
def _by_spelling() -> dict[str, Term]:
    return {spelling: term for term in TERMS for spelling in term.spellings}


@cache
def _signs() -> frozenset[str]:
    """Spellings whose capitals count."""
    return frozenset(word for word in _by_spelling() if word != word.lower())


@cache
def _pattern() -> re.Pattern[str]:
    """Any spelling, the longest first, in the plural too; not within a path or a longer word."""
    words = sorted(_by_spelling(), key=len, reverse=True)
    parts = [re.escape(word) if word in _signs() else f"(?i:{re.escape(word)})" for word in words]
    return re.compile(rf"(?<![\w./-])(?P<word>{'|'.join(parts)})(?:s)?(?![\w/-])")
