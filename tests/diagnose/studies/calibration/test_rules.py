"""Advice from numbers by window alone: planted gains and noise must give their verdicts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from awqscope.diagnose.statistics.bootstrap import Floats
from awqscope.diagnose.studies.calibration.answer import Agreement, GroupAgreement, Role
from awqscope.diagnose.studies.calibration.calibrations import Calibration
from awqscope.diagnose.studies.calibration.measuring import Measured
from awqscope.diagnose.studies.calibration.rules import (
    Numbers,
    advise_on_domains,
    advise_on_halves,
    advise_windows,
    find_spread,
)
from awqscope.mixedprec.errors import InputError

WINDOWS = 24
TEXT = np.random.default_rng(1).exponential(0.1, WINDOWS) + 0.05


def noisy(share: float, noise: float = 1e-4, seed: int = 0) -> Floats:
    """KL by window: `share` of the run's own, with noise of a share of that."""
    return TEXT * (share + noise * np.random.default_rng(seed).standard_normal(WINDOWS))


def make(kl: dict[str, Floats], apart: Floats | None = None) -> Numbers:
    found = {"run": TEXT, **kl}
    pairs = {} if apart is None else {("half 1", "half 2"): apart}
    return Numbers(Measured(found, found, pairs), seed=0)


def calibration(name: str, role: Role, size: int, *texts: str) -> Calibration:
    """The run's own windows are all zeros."""
    of = texts or ("a",)
    return Calibration(name, role, of, torch.full((size, 4), int(role != "run")), size)


RUN = calibration("run", "run", 16)


def curve(*shares: float, noise: float = 1e-4) -> tuple[Numbers, list[Calibration]]:
    """A curve that begins at 8 windows, one doubling a share."""
    counts = [calibration(str(8 << n), "count", 8 << n) for n in range(len(shares))]
    kl = {
        each.name: noisy(share, noise, seed=n)
        for n, (each, share) in enumerate(zip(counts, shares, strict=True))
    }
    return make(kl), [RUN, *counts]


@pytest.mark.parametrize(
    ("shares", "verdict", "windows", "beside"),
    [
        ((1.5, 1.2, 1.0, 0.998, 0.997), "enough", 32, 64),
        ((1.0, 1.0, 1.0), "enough", 8, 16),
        ((1.5, 1.2, 1.0, 0.9), "more", 64, 32),
        # A step that costs nothing does not hide one after it that gives back.
        ((1.0, 1.0, 0.9, 0.9), "enough", 32, 64),
        # More windows that are worse are no reason for more.
        ((1.0, 1.1), "enough", 8, 16),
    ],
)
def test_how_many_windows_suffice(
    shares: tuple[float, ...], verdict: str, windows: int, beside: int
) -> None:
    found = advise_windows(*curve(*shares), None)
    assert found is not None
    assert (found.verdict, found.windows, found.beside) == (verdict, windows, beside)
    assert found.limit == 0.01


def test_what_noise_hides_is_said_to_be_unclear() -> None:
    numbers, calibrations = curve(1.0, 0.99, noise=0.1)
    found = advise_windows(numbers, calibrations, None)
    assert found is not None and found.verdict == "unclear"
    assert found.gain[1] < found.limit < found.gain[2]


def test_what_another_draw_changes_too_is_no_gain() -> None:
    numbers, calibrations = curve(1.0, 0.97)
    gained = advise_windows(numbers, calibrations, 0.01)
    same = advise_windows(numbers, calibrations, 0.05)
    assert gained is not None and gained.verdict == "more"
    assert same is not None and (same.verdict, same.windows, same.limit) == ("enough", 8, 0.05)


def test_nothing_is_a_share_of_no_damage() -> None:
    nothing = {"run": np.zeros(WINDOWS)}
    with pytest.raises(InputError, match="no calibration can be better"):
        Numbers(Measured(nothing, nothing, {}), seed=0)


def test_one_count_tells_nothing() -> None:
    assert advise_windows(*curve(1.0), None) is None


def test_the_spread_is_of_as_many_windows_alone() -> None:
    numbers = make({"draw 1": noisy(1.02), "draw 2": noisy(0.97), "8": noisy(2), "16": noisy(1.01)})
    others = [calibration("8", "count", 8), calibration("16", "count", 16)]
    draws = [calibration(name, "draw", 16) for name in ("draw 1", "draw 2")]
    spread = find_spread(numbers, [RUN, *draws, *others])
    assert spread == pytest.approx(0.03, abs=1e-3)
    assert find_spread(numbers, [RUN, *others]) == pytest.approx(0.01, abs=1e-3)
    assert find_spread(numbers, [RUN, others[0]]) is None


def test_the_runs_own_windows_are_no_other_draw() -> None:
    """As a count they are what a short text has, or what a run of so many reads."""
    own = replace(RUN, name="16 windows", role="count")
    numbers = make({"16 windows": TEXT, "draw 1": noisy(0.97)})
    assert find_spread(numbers, [RUN, own]) is None
    draws = [calibration("draw 1", "draw", 16)]
    assert find_spread(numbers, [RUN, *draws, own]) == pytest.approx(0.03, abs=1e-3)


def test_the_spread_is_of_one_search() -> None:
    """Draws by another search that halves the damage, 2% of which is theirs."""
    numbers = make({"draw 1": noisy(0.5), "draw 2": noisy(0.51)})
    draws = [calibration(name, "draw", 16) for name in ("draw 1", "draw 2")]
    assert find_spread(numbers, [RUN, *draws], as_run=False) == pytest.approx(0.02, abs=1e-3)
    assert find_spread(numbers, [RUN, draws[0]], as_run=False) is None
    assert find_spread(numbers, [RUN], as_run=False) is None


@pytest.mark.parametrize(
    ("first", "second", "noise", "verdict"),
    [
        (1.1, 1.12, 1e-3, "steady"),
        (1.1, 1.3, 1e-3, "unsteady"),
        (1.3, 1.1, 1e-3, "unsteady"),
        (1.1, 1.16, 0.1, "unclear"),
    ],
)
def test_halves(first: float, second: float, noise: float, verdict: str) -> None:
    kl = {"half 1": noisy(first, noise, 1), "half 2": noisy(second, noise, 2)}
    groups = (GroupAgreement(kind="qkv", equal=3, of=4, apart=0.01),)
    agreement = Agreement(bits=4, groups=groups, clips=())
    found = advise_on_halves(make(kl, TEXT / 4), agreement)
    assert (found.verdict, found.equal, found.of) == (verdict, 3, 4)
    assert found.share[0] == pytest.approx(0.25)
    assert found.difference[0] == pytest.approx(second - first, abs=0.05)


@pytest.mark.parametrize(
    ("share", "drawn", "noise", "verdict"),
    [
        (0.88, 1.0, 1e-3, "uncovered"),
        (0.995, 1.0, 1e-3, "covered"),
        (1.3, 1.0, 1e-3, "covered"),
        (0.98, 1.0, 0.1, "unclear"),
        # Another draw of the run's own text gives back as much.
        (0.9, 0.85, 1e-3, "covered"),
        # Draws that are worse there are what a text does that does not cover it.
        (0.88, 3.0, 1e-3, "uncovered"),
    ],
)
def test_whether_a_text_is_covered(share: float, drawn: float, noise: float, verdict: str) -> None:
    both = calibration("both 1", "both", 16, "a", "code")
    draws = [calibration("draw 1", "draw", 16)]
    numbers = make({"both 1": noisy(share, noise, 1), "draw 1": noisy(drawn, noise, 2)})
    overall = make({"both 1": noisy(1.01, 1e-4, 3), "draw 1": TEXT})
    (found,) = advise_on_domains({"v": numbers}, overall, [RUN, *draws, both])
    assert (found.calib, found.valid, found.verdict) == ("code", "v", verdict)
    assert found.gain[0] == pytest.approx(1 - share, abs=0.05)
    assert found.elsewhere[0] == pytest.approx(-0.01, abs=1e-3)
