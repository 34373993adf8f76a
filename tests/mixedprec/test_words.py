"""Every number that a person reads is written by one set of functions, and these write it so."""

import json
import pickle
import re

import pytest

from awqscope.mixedprec.words import (
    NOTHING,
    Written,
    join_words,
    write_bounded,
    write_decibels,
    write_duration,
    write_interval,
    write_memory,
    write_number,
    write_points,
    write_ranges,
    write_share,
    write_size,
)
from tests.help.root import ROOT

MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (None, "–"),
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (12_345, "12.3 kB"),
        (999_949, "999.9 kB"),
        (999_999, "1.00 MB"),
        (4_970_000, "4.97 MB"),
        (999_999_999, "1.00 GB"),
        (141_107_000_000, "141.11 GB"),
    ],
)
def test_sizes_of_files(count: float | None, said: str) -> None:
    assert write_size(count) == said


def test_what_is_added_has_a_sign() -> None:
    assert write_size(98_304, signed=True) == "+98.3 kB"
    assert write_size(-2_500_000, signed=True) == "−2.50 MB"
    assert write_size(0, signed=True) == "+0 bytes"


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (None, "–"),
        (85 * MIB, "85 MiB"),
        (GIB - 1, "1.00 GiB"),
        (1.29 * GIB, "1.29 GiB"),
        (2048 * GIB, "2,048.00 GiB"),
    ],
)
def test_memory(count: float | None, said: str) -> None:
    assert write_memory(count) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "1 s"),
        (89.4, "89 s"),
        (89.6, "1 min"),
        (120, "2 min"),
        (5_399, "90 min"),
        (5_400, "1.5 h"),
        (360_000, "100.0 h"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert write_duration(seconds) == said


def test_numbers_and_their_intervals() -> None:
    assert [write_number(None), write_number(-0.5), write_number(0.25, "+.1%")] == [
        "–",
        "−0.5",
        "+25.0%",
    ]
    assert [write_interval(None), write_interval((0.1, None)), write_interval((-1, 2), "+.1f")] == [
        *("", "", "[−1.0, +2.0]")
    ]
    assert write_bounded(0.1234, (-0.1, 0.2), ".2f") == "0.12 [−0.10, 0.20]"
    assert write_bounded(1, None) == "1"
    assert [write_points(None), write_points(-0.0123)] == ["–", "−1.2 points"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (write_number(1 / 3), (1 / 3,)),
        (write_interval((0.1234567, 2.0)), (0.1234567, 2.0)),
        (write_bounded(1.23456789, (1, 2)), (1.23456789, 1, 2)),
        (write_bounded(1.23456789, None), (1.23456789,)),
        (write_size(1_234_567), (1_234_567,)),
        (write_share(0.98765), (0.98765,)),
        (write_points(-0.0123456), (-0.0123456,)),
        (write_decibels(23.456), (23.456,)),
    ],
)
def test_what_is_written_keeps_its_numbers(text: str, values: tuple[float, ...]) -> None:
    assert isinstance(text, Written) and text.values == values
    kept = pickle.loads(pickle.dumps(text))
    assert kept == text and kept.values == values
    # It is text: what is made of it, and what JSON has of it, no more.
    assert type(f"{text}") is type(str(text)) is str and json.loads(json.dumps(text)) == text
    assert not any(isinstance(write(None), Written) for write in (write_number, write_size))


def test_lists_of_words() -> None:
    assert join_words([]) == ""
    assert join_words(["a"]) == "a"
    assert join_words([0, 1, 5]) == "0, 1 and 5"
    assert join_words(["a", "b"], "or") == "a or b"
    assert write_ranges([6, 0, 1, 2, 3, 4]) == "0–4, 6"


# What stands for a formatter of its own: bytes divided into a unit, a minus sign
# that is a hyphen or made of one.
OWN = re.compile(
    r"\{[^{}]*[^/]/ (1e[69]|2\*\*[23]0|[MG]IB)\b"
    r"|\.replace\(\"-\", \"−\"\)"
    r"|^(?!.*hovertemplate).*\{[^{}]*:\+,?\.\d[f%]\}"
)


def test_nothing_else_formats_them() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{at}"
        for folder in ("mixedprec", "diagnose", "app")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != ROOT / "mixedprec" / "words.py"
        for at, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if OWN.search(line) and "fromtimestamp" not in line
    ]
    assert found == []


def test_decibels_have_their_unit() -> None:
    assert write_decibels(-3.04) == "−3.0 dB"
    assert write_decibels(None) == NOTHING
