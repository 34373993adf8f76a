"""Amounts as people type them: shares of a whole."""

import re

from awqscope.mixedprec.errors import InputError


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
