"""Which of several models loses least: order, dominance and differences against plain loops."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from awqscope.diagnose.compared.ranking import Ranked, choose_best, dominates, rank, tokens_of
from awqscope.diagnose.compared.standing import Standing, read_standing
from awqscope.diagnose.gate.findings import Finding
from awqscope.diagnose.gate.paired import Pair, Side
from tests.help.releases import OTHER_TOKENS, side, write_release
from tests.help.runs import SAMPLE, change_record, write_comparison, write_run

WINDOWS = 40


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("releases")
    write_release(folder, "worse", 1.5)
    write_release(folder, "better", 0.8, day=2)
    write_run(folder, "elsewhere", ppl_definition=OTHER_TOKENS)
    yield folder


def ranked_of(sides: list[Side], baseline: int | None = None) -> list[Ranked]:
    return rank([read_standing(each) for each in sides], baseline)


def test_the_least_kl_comes_first_and_other_tokens_last(root: Path) -> None:
    sides = [side(root / name) for name in ("elsewhere", "worse", "better")]
    ranked = ranked_of([*sides, side(SAMPLE)])
    names = [one.standing.side.run.path.name for one in ranked]
    assert names == ["better", "sample", "worse", "elsewhere"]
    assert ranked[0].pair is None and ranked[0].is_comparable
    assert [one.is_comparable for one in ranked] == [True, True, True, False]
    assert [one.is_surely_worse for one in ranked] == [False, True, True, False]
    assert tokens_of(sides[0]) != tokens_of(sides[1]) == tokens_of(sides[2])
    held = ranked_of([*sides, side(SAMPLE)], baseline=1)
    assert next(one for one in held if one.pair is None).standing.side == sides[1]
    # The best of the most is chosen, though one on other tokens loses less.
    standings = [read_standing(each) for each in sides]
    assert choose_best([replace(standings[0], kl=0.0), *standings[1:]]) == 2


def test_differences_are_those_of_the_tokens_by_window(root: Path) -> None:
    """Held against scipy's bootstrap of the windows' paired differences, and pandas' means."""
    ranked = ranked_of([side(root / "better"), side(root / "worse")])
    pair = ranked[1].pair
    assert pair is not None
    rows = [
        pq.read_table(root / name / "tokens.parquet").to_pandas().dropna(subset=["kl_mixed"])
        for name in ("better", "worse")
    ]
    by_window: dict[str, Any] = {}
    for name, column in (("kl", "kl_mixed"), ("top1_agreement", "agree_mixed")):
        values = [
            each.assign(v=each[column].astype(float)).groupby("window")["v"].mean() for each in rows
        ]
        by_window[name] = (values[1] - values[0]).to_numpy()
    for name, differences in by_window.items():
        assert len(differences) == WINDOWS
        found = pair.changes[name]
        assert isinstance(found, Finding)
        assert found.value == pytest.approx(differences.mean(), rel=1e-5)
        expected = stats.bootstrap(
            (differences,), np.mean, method="percentile", n_resamples=4000, rng=1
        ).confidence_interval
        width = expected.high - expected.low
        assert found.low == pytest.approx(expected.low, abs=0.12 * width)
        assert found.high == pytest.approx(expected.high, abs=0.12 * width)
        # As t has it: wider than the percentiles of so few windows.
        assert found.high - found.low > width
    ppl = pair.changes["ppl"]
    assert isinstance(ppl, Finding)
    means = [math.exp(each["nll_mixed"].mean()) for each in rows]
    assert ppl.value == pytest.approx(means[1] - means[0], abs=1e-3)


def test_dominance_is_that_of_every_pair(root: Path) -> None:
    rng = np.random.default_rng(0)
    plain = read_standing(side(SAMPLE))
    for _ in range(20):
        sizes, kls = rng.integers(1, 6, 7).tolist(), rng.integers(1, 6, 7).tolist()
        standings = [replace(plain, bytes=size, kl=kl) for size, kl in zip(sizes, kls, strict=True)]
        ranked = rank(standings, pair=lambda a, b: Pair(True, {"kl": Finding(0, 0, 0)}))
        for one in ranked:
            mine = one.standing
            expected = any(
                size <= mine.bytes and kl <= mine.kl and (size, kl) != (mine.bytes, mine.kl)
                for size, kl in zip(sizes, kls, strict=True)
            )
            assert one.dominated is expected
    unknown = replace(plain, kl=None)
    assert not dominates(unknown, plain) and not dominates(plain, unknown)
    # Whoever was measured on other tokens makes nobody pointless.
    elsewhere = read_standing(side(root / "elsewhere"))
    small = replace(elsewhere, bytes=1, kl=0.0)
    assert not any(one.dominated for one in rank([plain, small]))


def test_a_run_without_a_hash_of_its_tokens_shares_them_with_nobody(tmp_path: Path) -> None:
    path = write_comparison(tmp_path)
    definition = {k: v for k, v in OTHER_TOKENS.items() if k != "tokens_sha256"}
    change_record(path, ppl_definition=definition)
    standings: list[Standing] = [read_standing(side(path)), read_standing(side(SAMPLE))]
    assert len({tokens_of(each.side) for each in standings}) == 2
