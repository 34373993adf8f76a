"""Which windows a study searches: halves, draws, counts and texts."""

import pytest
import torch

from awqscope.diagnose.inputs.corpora import pick_windows
from awqscope.diagnose.studies.calibration.asked import Asked, parse_counts
from awqscope.diagnose.studies.calibration.calibrations import (
    count_up,
    draw,
    halve,
    list_calibrations,
)
from awqscope.mixedprec.errors import InputError

AVAILABLE = torch.arange(20 * 3).view(20, 3)
READ = pick_windows(AVAILABLE, 6)


def rows(windows: torch.Tensor) -> list[int]:
    """Which of the available windows these are."""
    return (windows[:, 0] // 3).tolist()


def test_halves_are_spread_and_equal() -> None:
    first, second = halve(READ, "a")
    assert sorted(rows(first.windows) + rows(second.windows)) == sorted(rows(READ))
    assert len(first.windows) == len(second.windows) == 3
    between = zip(rows(first.windows), rows(second.windows), strict=True)
    assert all(one < other for one, other in between)
    # An odd one is in neither; one window has no halves.
    assert [len(half.windows) for half in halve(READ[:5], "a")] == [2, 2]
    assert halve(READ[:1], "a") == []


def test_draws_are_of_what_was_not_read_and_have_no_window_twice() -> None:
    draws = draw(READ, "a", AVAILABLE, 2, seed=0)
    assert [len(each.windows) for each in draws] == [6, 6]
    drawn = [number for each in draws for number in rows(each.windows)]
    assert len(set(drawn)) == 12 and not set(drawn) & set(rows(READ))
    again = draw(READ, "a", AVAILABLE, 2, seed=0)
    assert [rows(each.windows) for each in again] == [rows(each.windows) for each in draws]
    other = draw(READ, "a", AVAILABLE, 2, seed=1)
    assert [rows(each.windows) for each in other] != [rows(each.windows) for each in draws]


def test_there_are_as_many_draws_as_the_text_has() -> None:
    assert len(draw(READ, "a", AVAILABLE, 9, seed=0)) == 2
    assert draw(AVAILABLE, "a", AVAILABLE, 2, seed=0) == []


def test_counts_are_what_a_run_would_read() -> None:
    found = count_up("a", AVAILABLE, (2, 4, 64, 128))
    assert [len(each.windows) for each in found] == [2, 4, 20]
    assert torch.equal(found[1].windows, pick_windows(AVAILABLE, 4))


def test_a_further_text_is_tried_alone_and_with_the_first() -> None:
    other = AVAILABLE + 1000
    found = list_calibrations(READ, "a", AVAILABLE, {"b": other}, counts=(), draws=0, seed=0)
    assert [each.name for each in found] == ["run", "half 1", "half 2", "text 1", "both 1"]
    alone, both = found[-2:]
    assert torch.equal(alone.windows, pick_windows(other, 6)) and alone.texts == ("b",)
    assert both.texts == ("a", "b")
    assert [int(window[0]) >= 1000 for window in both.windows] == [False] * 3 + [True] * 3


def test_a_short_text_is_tried_with_more_of_the_first() -> None:
    other = AVAILABLE[:2] + 1000
    found = list_calibrations(READ, "a", AVAILABLE, {"b": other}, counts=(), draws=0, seed=0)
    alone, both = found[-2:]
    assert torch.equal(alone.windows, other) and alone.of_last == 2
    assert torch.equal(both.windows, torch.cat([pick_windows(READ, 4), other]))
    assert both.of_last == 2


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"counts": (0,)}, "no number of windows"),
        ({"draws": -1}, "out of range"),
        ({"search": "slow"}, "not known"),
        ({"windows": 1}, "too small"),
        ({"calib_also": ("a", "a")}, "--calib-also a is given twice"),
        ({"valid_also": ("a", "b", "a")}, "--valid-also a is given twice"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Asked(**asked)  # type: ignore[arg-type]


def test_counts_as_they_are_typed() -> None:
    assert parse_counts("64, 8,8") == (8, 64)
    with pytest.raises(InputError, match="no list of counts"):
        parse_counts("8;16")
