"""The experts that saw too few calibration tokens, in words: the same in every report."""

from collections.abc import Mapping, Sequence


def write_uncalibrated(found: Mapping[str, Sequence[str]]) -> str | None:
    """`5 experts saw too few calibration tokens and are rounded to nearest: 0, 5 and 6 of block 0;
    …`; None where there are none. found: block -> names of its experts, as a record has them."""
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
