"""The experts that saw too few calibration tokens, in words: the same in every report. No torch."""

from collections.abc import Mapping
from typing import Any


def write_uncalibrated(record: Mapping[str, Any]) -> str | None:
    """`5 experts saw too few calibration tokens and are rounded to nearest: 0, 5 and 6 of block 0;
    …`; None where there are none. record: run.json."""
    found: Mapping[str, list[str]] = record.get("uncalibrated", {})
    if not found:
        return None
    count = sum(map(len, found.values()))
    listed = "; ".join(
        f"{', '.join(name.rpartition('.')[2] for name in experts)} of block {block}"
        for block, experts in found.items()
    )
    subject, verb = ("experts", "are") if count > 1 else ("expert", "is")
    seen = f"{count} {subject} saw too few calibration tokens"
    return f"{seen} and {verb} rounded to nearest: {listed}"
