"""Amounts as people type them: bytes and shares."""

import re

from awqscope.mixedprec.errors import InputError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_bytes(text: str, what: str = "amount of memory") -> int:
    """`8GiB`, `4.97 MB`, or a number of bytes, with commas between thousands or without. InputError
    for anything else. what: as which it is refused."""
    number = r"(\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?)"
    match = re.fullmatch(
        number + r"\s*([KMGT]?)(i?)(?:B|bytes)?", text.strip(), re.IGNORECASE | re.ASCII
    )
    if not match:
        raise InputError(f"{text!r} is no {what}", "give it like 8GiB or 500MB")
    count, unit, binary = match.groups()
    power = UNITS[unit.upper()]
    if binary:
        power = 1024 ** ("", "K", "M", "G", "T").index(unit.upper())
    return int(float(count.replace(",", "")) * power)


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
