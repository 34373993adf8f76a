"""Numbers, amounts and lists as a person reads them: one set for pages, reports, the terminal,
model cards and messages.

Bytes of files count in powers of ten, as disks and hubs do. Memory counts in powers of two, as
`--max-memory` and the system do.
"""

from collections.abc import Sequence

GIB, MIB = 2**30, 2**20
NOTHING = "–"
# Units of a file's size, the bytes of one, and the decimals it is written with.
SIZES = (("bytes", 1, 0), ("kB", 1e3, 1), ("MB", 1e6, 2), ("GB", 1e9, 2))
# Seconds up to which a duration is said in seconds, and in minutes.
MOST_SECONDS, MOST_MINUTES = 90, 90 * 60


class Written(str):
    """Numbers written out, which it keeps: what is rounded to be read can be saved as it is.

    values: a number; a low and a high bound; or a number with both. words: what is said beside
    them."""

    values: tuple[float | None, ...]
    words: str

    def __new__(cls, text: str, *values: float | None, words: str = "") -> "Written":
        """The text; str takes no more than that."""
        made = super().__new__(cls, text)
        made.values, made.words = values, words
        return made


def join_written(*parts: str, between: str = " ") -> str:
    """What there is of the parts in one text, which keeps their numbers."""
    there = [part for part in parts if part]
    numbers = [part for part in there if isinstance(part, Written)]
    text = between.join(there)
    if not numbers:
        return text
    words = [part.words if isinstance(part, Written) else part.strip() for part in there]
    values = [value for number in numbers for value in number.values]
    return Written(text, *values, words=" ".join(filter(None, words)))


def write_number(value: float | None, form: str = ".4g") -> str:
    """A number with a minus sign and not a hyphen, or a dash where there is none."""
    return NOTHING if value is None else Written(format(value, form).replace("-", "−"), value)


def write_interval(bounds: Sequence[float | None] | None, form: str = ".4g") -> str:
    """`[low, high]`, or nothing where a bound is missing."""
    known = [bound for bound in bounds or () if bound is not None]
    if bounds is None or len(known) < len(bounds):
        return ""
    return Written(f"[{', '.join(write_number(bound, form) for bound in known)}]", *known)


def write_bounded(
    value: float | None, bounds: Sequence[float | None] | None, form: str = ".4g"
) -> str:
    """A number with its interval: `0.123 [0.120, 0.126]`."""
    number, interval = write_number(value, form), write_interval(bounds, form)
    if not isinstance(interval, Written):
        return number
    return Written(f"{number} {interval}", value, *interval.values)


def write_size(count: float | None, *, signed: bool = False) -> str:
    """Bytes of a file: `1.23 GB`, `4.97 MB`, `12.3 kB`, `999 bytes`. signed: with a plus, for what
    is added."""
    if count is None:
        return NOTHING
    # Rounded first: 999,999 bytes are 1.00 MB and not 1,000.0 kB.
    unit, size, decimals = next(
        each for each in SIZES if round(abs(count) / each[1], each[2]) < 1000 or each is SIZES[-1]
    )
    if abs(count) == 1:
        unit = "byte"
    form = f"{'+' * signed},.{decimals}f"
    return Written(f"{write_number(count / size, form)} {unit}", count)


def write_memory(count: float | None) -> str:
    """Bytes of memory: `1.29 GiB` or `741 MiB`."""
    if count is None:
        return NOTHING
    is_large = round(count / MIB) >= 1024
    text = f"{count / GIB:,.2f} GiB" if is_large else f"{count / MIB:.0f} MiB"
    return Written(text, count)


def write_duration(seconds: float) -> str:
    """Seconds in words of one unit: `45 s`, `12 min`, `2.5 h`."""
    if round(seconds) < MOST_SECONDS:
        text = f"{max(1, seconds):.0f} s"
    elif seconds < MOST_MINUTES:
        text = f"{seconds / 60:.0f} min"
    else:
        text = f"{seconds / 3600:.1f} h"
    return Written(text, seconds)


def write_share(value: float | None, form: str = ".1%") -> str:
    """A share in percent."""
    return write_number(value, form)


def write_count(count: int) -> str:
    """How many there are, with commas between thousands."""
    return Written(f"{count:,}", count)


def write_span(first: int, last: int) -> str:
    """From a whole number to another: `0–15`."""
    return Written(f"{first}–{last}", first, last)


def write_times(factor: float, form: str = ".1f") -> str:
    """How many times as large something is: `2.6×`."""
    return Written(f"{format(factor, form)}×", factor)


def write_points(difference: float | None) -> str:
    """A difference of two shares, in percentage points."""
    if difference is None:
        return NOTHING
    return Written(f"{write_number(100 * difference, '+.1f')} points", difference)


def bound_points(bounds: Sequence[float | None], form: str = "+.1f") -> str:
    """The bounds of a difference of two shares, in percentage points."""
    ends = [None if bound is None else 100 * bound for bound in bounds]
    text = write_interval(ends, form)
    return Written(text, *bounds) if text else ""


def write_chance(value: float) -> str:
    """A p value: `= 0.034`, or `< 0.001`."""
    text = "< 0.001" if value < 0.001 else f"= {write_number(value, '.2g')}"
    return Written(text, value)


def write_decibels(value: float | None) -> str:
    """A ratio of powers in decibels: `23.4 dB`."""
    return NOTHING if value is None else Written(f"{write_number(value, '.1f')} dB", value)


def join_words(words: Sequence[object], last: str = "and") -> str:
    """`a, b and c`; nothing of none."""
    texts = [str(word) for word in words]
    return (
        f" {last} ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)
    )


def write_ranges(numbers: Sequence[int]) -> str:
    """`0–4, 6` for 0, 1, 2, 3, 4 and 6."""
    runs: list[list[int]] = []
    for each in sorted(numbers):
        if runs and each == runs[-1][-1] + 1:
            runs[-1].append(each)
        else:
            runs.append([each])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
