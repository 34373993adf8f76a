"""What is said of a run's calibration: every verdict has its sentence, with its numbers."""

from typing import Any

import pytest

from awqscope.app.words.studies.calibration import (
    curve_rows,
    matrix_columns,
    matrix_rows,
    pair_rows,
    write_advice,
    write_gain,
    write_how,
)
from awqscope.diagnose.studies.calibration.answer import CalibrationAdvice
from tests.help.calibrated import make_advice


def change(part: str, **changes: Any) -> CalibrationAdvice:
    """The answer with a part changed."""
    advice = make_advice()
    return make_advice(**{part: getattr(advice, part).changed(**changes)})


def said(advice: CalibrationAdvice) -> str:
    return " ".join(write_advice(advice))


def test_everything_that_was_found_is_said() -> None:
    assert write_advice(make_advice()) == [
        "64 calibration windows suffice: 128 give back 0.3% (−0.2% to 0.8%) of the damage.",
        "The run's search read 16 of its 128 windows; 64 give back 2.0% (1.5% to 2.5%), which a "
        "run's fast search does not read. One with --search exact does: calibrate with --search "
        "exact tells what that gives back.",
        "Halves of the run's windows agree on 26 of 60 scale ratios. Their models are apart by a "
        "KL of 20.0% of the damage; they cost the same, but for 1.0% (−0.4% to 2.0%).",
        "Another draw of as many windows changes the damage by up to 0.6%.",
        "texts/code.txt is not covered by texts/calib.txt: calibrating on more/code.txt too gives "
        "back 12.0% there (10.0% to 14.0%); add some of it. On all the run's validation windows "
        "that adds 1.0%.",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"verdict": "unclear"},
            "From 64 calibration windows on no more surely give back over 1.0%: ",
        ),
        (
            {"verdict": "more", "windows": 128, "beside": 64, "gain": (0.03, 0.02, 0.04)},
            "128 calibration windows still give back 3.0% (2.0% to 4.0%) of the damage of 64: more",
        ),
        ({"of_run": (0.004, -0.01, 0.02)}, "16 of its 128 windows; 64 give back 0.4%"),
        (
            {"limit": 0.05, "of_run": (-0.03, -0.04, -0.02)},
            "More than 64 calibration windows give back no more than another draw of windows "
            "changes (5.0%): 128 give back 0.3%",
        ),
        (
            {"limit": 0.05, "of_run": (-0.03, -0.04, -0.02)},
            "windows; 64 add 3.0% (2.0% to 4.0%), as another draw may (up to 5.0%).",
        ),
        # An interval above nothing says so only beside the limit.
        (
            {"verdict": "unclear", "limit": 0.05, "gain": (0.03, 0.02, 0.06)},
            "From 64 calibration windows on no more surely give back over what another draw of "
            "windows changes (5.0%): 128 give back 3.0% (2.0% to 6.0%) of the damage.",
        ),
        (
            {"verdict": "more", "beside": 32, "limit": 0.05, "gain": (0.08, 0.06, 0.1)},
            "(6.0% to 10.0%) of the damage of 32, more than another draw of windows changes (5.0%)",
        ),
        ({"windows": 8}, "run it with --calib-windows 8."),
    ],
)
def test_windows(changes: dict[str, Any], words: str) -> None:
    assert words in said(change("windows", **changes))


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"search": "exact"}, "--search exact --calib-windows 64"),
        ({"run_search": "exact", "search": "exact"}, "--calib-windows 64"),
        ({"run_search": "exact", "seq_len": 32}, "--search fast --calib-windows 64"),
        # Of a mixture of experts a fast search reads all.
        ({"fast_tokens": None}, "--calib-windows 64"),
    ],
)
def test_the_options_are_those_that_were_measured(changes: dict[str, Any], options: str) -> None:
    words = said(make_advice(**changes))
    assert "give back 2.0% (1.5% to 2.5%)" in words and f": run it with {options}." in words


def test_another_search_is_not_taken_for_more_windows() -> None:
    words = said(make_advice(search="exact"))
    assert (
        "The run's search, fast, read 16 of its 128 windows; 64, searched exact, give back 2.0% "
        "(1.5% to 2.5%) by that search and by their number together: run it with" in words
    )
    of_run = {"limit": 0.05, "of_run": (-0.03, -0.04, -0.02)}
    found = make_advice().windows
    assert found is not None
    other = said(make_advice(search="exact", windows=found.changed(**of_run)))
    assert "4.0%) by that search and by their number together." in other


def test_what_no_fast_search_of_a_run_reads_is_no_advice_to_run_it() -> None:
    words = said(make_advice(run_search="exact"))
    assert "which a run's fast search does not read" in words and "run it with" not in words


@pytest.mark.parametrize(
    ("verdict", "words"),
    [("unsteady", "the choices are the windows'"), ("unclear", "is not sure: they differ by 1.0%")],
)
def test_halves(verdict: str, words: str) -> None:
    assert words in said(change("stability", verdict=verdict))


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("covered", "texts/code.txt is covered: calibrating on more/code.txt too gives back 12.0%"),
        ("unclear", "Whether texts/code.txt is covered is not sure: more/code.txt too gives back"),
    ],
)
def test_domains(verdict: str, words: str) -> None:
    (found,) = make_advice().domains
    assert words in said(make_advice(domains=(found.changed(verdict=verdict),)))


def test_what_another_draw_gives_back_is_said_of_a_domain_too() -> None:
    (found,) = make_advice().domains
    for verdict in ("covered", "unclear", "uncovered"):
        words = said(make_advice(domains=(found.changed(verdict=verdict, limit=0.13),)))
        assert "(10.0% to 14.0%), and another draw of windows gives back up to 13.0%" in words


def test_a_text_that_adds_damage_gives_nothing_back() -> None:
    (found,) = make_advice().domains
    found = found.changed(verdict="covered", gain=(-0.03, -0.04, -0.02))
    words = said(make_advice(domains=(found,)))
    assert "calibrating on more/code.txt too adds 3.0% there (2.0% to 4.0%)." in words


def test_of_a_short_text_it_says_how_much_there_was() -> None:
    *others, both = make_advice().calibrations
    advice = make_advice(calibrations=(*others, both.changed(of_last=3)))
    assert "calibrating on more/code.txt (3 of 16 windows) too gives back 12.0%" in said(advice)
    assert matrix_rows(advice)[-1]["name"] == "3 of its 16 windows more/code.txt"


def test_without_another_text_it_says_how_to_try_one() -> None:
    assert "--calib-also SPEC tells which" in said(make_advice(domains=()))
    assert "--calib-also SPEC" not in said(make_advice())


def test_what_adds_damage_gives_nothing_back() -> None:
    assert write_gain((-0.004, -0.01, 0.002)) == "add 0.4% (−0.2% to 1.0%)"


def test_how_it_was_searched_is_said() -> None:
    said = write_how(make_advice())
    assert said.startswith("Searched fast, on every window that is named.")
    assert "reads at most 8,192 tokens" in said and said.endswith("validation windows, paired.")
    other = write_how(make_advice(search="exact"))
    assert "exact, on every window that is named; the run's own search is fast" in other
    assert "at most" not in write_how(make_advice(run_search="exact", search="exact"))
    assert "at most" not in write_how(make_advice(fast_tokens=None))


def test_tables() -> None:
    advice = make_advice()
    curve = curve_rows(advice)
    assert [row["windows"] for row in curve] == ["8", "8", "8", "16", "16", "32"]
    own = next(row for row in curve if row["name"] == "the run's own")
    assert own["gain"] == "" and own["kl"] == "0.50000 [0.45000, 0.55000]"
    halves, _ = pair_rows(advice)
    assert halves["pair"] == "half 1 and half 2" and halves["kinds"] == "qkv 20/30 and down 6/30"
    assert (halves["equal"], halves["clips"]) == ("26/60", "70.0%, 20.0%, 10.0%")
    assert list(matrix_columns(advice).values()) == [
        *("Calibrated on", "texts/wiki.txt", "texts/code.txt"),
    ]
    names = [row["name"] for row in matrix_rows(advice)]
    assert names == ["the run's own", "more/code.txt, 16 windows", "half of it more/code.txt"]
    assert matrix_rows(advice)[2]["texts/code.txt"].endswith("+12.0% [+11.6%, +12.4%]")
