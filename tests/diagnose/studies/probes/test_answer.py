"""The order of alternatives, and what is sure of them."""

import pytest

from awqscope.diagnose.studies.probes.answer import BlockProbe, judge, per_megabyte, sort_measured
from tests.help.probed import make_measured, make_probe


def test_by_what_is_given_back_a_byte() -> None:
    given = [
        make_measured("harms little", -0.01, 0),
        make_measured("dear", 0.5, 10**6),
        make_measured("free", 0.1, 0),
        make_measured("cheap", 0.2, 10**5),
        make_measured("harms", -0.5, -(10**6)),
        make_measured("saves bytes too", 0.2, -100),
    ]
    names = [each.name for each in sort_measured(given)]
    assert names == ["saves bytes too", "free", "cheap", "dear", "harms little", "harms"]


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        ((0.2, 0.1, 0.3), "helps"),
        ((0.1, 0.0, 0.3), "unsure"),
        ((-0.1, -0.3, 0.1), "unsure"),
        ((-0.2, -0.3, -0.1), "worse"),
    ],
)
def test_what_is_sure(gain: tuple[float, float, float], verdict: str) -> None:
    assert judge(gain) == verdict


def test_a_price_needs_bytes() -> None:
    assert per_megabyte(0.1, 50_000) == pytest.approx(2.0)
    assert per_megabyte(0.1, 0) is None and per_megabyte(0.1, -5) is None


def test_it_is_read_as_it_was_written() -> None:
    probe = make_probe()
    assert BlockProbe.model_validate(probe.to_json()) == probe
