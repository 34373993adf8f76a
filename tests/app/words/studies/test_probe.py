"""What is said of a probe."""

from awqscope.app.words.studies.probe import (
    find_best,
    probe_rows,
    write_finding,
    write_refused,
    write_scheme,
    write_way,
    write_windows,
)
from tests.help.probed import make_measured, make_probe


def test_the_finding() -> None:
    said = write_finding(make_probe())
    assert said == (
        "Block 5, which the run flagged, at 4 bits in groups of 64 costs a KL of 0.22000 nats a "
        "token alone; the uniform model costs 0.25000. "
        "Most a byte: o-8 in words, 60.0% of the uniform model's KL given back (59.6% to 60.4%) "
        "for +30.0 kB. "
        "For no bytes: half-calibration in words, 4.0% of the uniform model's KL given back (3.6% "
        "to 4.4%). "
        "Worse than nothing: symmetric in words."
    )


def test_where_nothing_helps() -> None:
    unsure = make_probe(alternatives=[make_measured("rtn", 0.0005, 0)], flagged=False)
    said = write_finding(unsure)
    assert "Nothing that was tried helps for sure." in said
    assert "Most a byte" not in said and "Worse" not in said and "flagged" not in said
    assert find_best(unsure) == (None, None)


def test_a_line_an_alternative_in_their_order() -> None:
    rows = probe_rows(make_probe())
    assert [row["name"] for row in rows] == [
        *("half-calibration", "no-clipping", "o-8", "groups-32", "block-8", "symmetric"),
    ]
    best = rows[2]
    assert best["restored"] == "0.15 [0.149, 0.151]"
    assert best["isolated"] == "0.3 [0.298, 0.302]"
    assert (best["bytes"], best["price"], best["verdict"]) == ("+30.0 kB", "5", "● helps")
    assert (rows[0]["bytes"], rows[0]["price"]) == ("none", "–")
    assert rows[1]["verdict"] == "○ not sure"
    assert rows[-1]["bytes"] == "−10.0 kB"


def test_little_is_not_written_as_nothing() -> None:
    little = make_measured("o-8", 3e-7, 30_000, restored_gain=(3e-7, 2e-7, 4.04e-7))
    probe = make_probe(alternatives=[little], isolated=(2e-6, 1e-6, 3e-6), uniform=(5e-6,) * 3)
    (row,) = probe_rows(probe)
    assert row["restored"] == "3e−07 [2e−07, 4.04e−07]" and row["price"] == "1e−05"
    assert "a KL of 2.0e-06 nats a token alone; the uniform model costs 5.0e-06." in write_finding(
        probe
    )


def test_what_was_not_tried_and_what_it_was_measured_on() -> None:
    probe = make_probe()
    assert write_refused(probe) == ["Not tried: groups of 128 (128 does not divide 192)."]
    assert write_windows(probe).startswith("Measured on 3 of the 12 windows of the run's text (765")
    whole = make_probe(windows=list(range(12)))
    assert write_windows(whole).startswith("Measured on all 12 windows")


def test_how_to_have_what_no_recipe_holds() -> None:
    assert write_way(make_measured("x", 0, 0, options="--symmetric")) == "awqscope run --symmetric"
    assert write_way(make_measured("x", 0, 0)) == "no option of a run"


def test_schemes() -> None:
    assert write_scheme(make_probe(group_size=-1)) == "4 bits with a group a row"
    assert write_scheme(make_probe(symmetric=True)) == "4 bits in groups of 64, symmetric"
