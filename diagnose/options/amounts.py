"""Amounts as people type them: of memory, and shares of a whole."""

import re
from typing import Any

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.words import GIB

POWERS = ("", "K", "M", "G", "T")


def parse_bytes(text: str, what: str = "amount of memory") -> int:
    """Read `8GiB`, `4.97 MB`, or a number of bytes, with commas between thousands or without.
    InputError for anything else. what: as which it is refused.

    pydantic's ByteSize takes neither commas nor `bytes`, and leaves out what follows a size.
    """
    number = r"(\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?)"
    match = re.fullmatch(
        number + r"\s*([KMGT]?)(i?)(?:B|bytes)?", text.strip(), re.IGNORECASE | re.ASCII
    )
    if not match:
        raise InputError(f"{text!r} is no {what}", "give it like 8GiB or 500MB")
    count, unit, binary = match.groups()
    return int(
        float(count.replace(",", "")) * (1024 if binary else 1000) ** POWERS.index(unit.upper())
    )


def parse_share(text: str) -> float:
    """`95%`, `95` or `0.95`. InputError for anything else, and for what may be a share or a
    percentage, such as 1.5."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(%?)", text.strip(), re.ASCII)
    if match:
        number = float(match[1])
        if match[2] or 2 <= number <= 100:
            number /= 100
        if number <= 1:
            return number
    raise InputError(f"{text!r} is no share", "give it like 95% or 0.95")


def read_share(given: Any) -> Any:
    """The share that is typed; anything else as it is."""
    return parse_share(given) if isinstance(given, str) else given


def read_bytes(given: Any) -> Any:
    """The bytes of an amount that is typed; anything else as it is."""
    return parse_bytes(given) if isinstance(given, str) else given


def write_bytes(count: int) -> str:
    """An amount of memory as `parse_bytes` reads it."""
    gib, rest = divmod(count, GIB)
    return str(count) if rest else f"{gib}GiB"
