"""Every number by text: against numpy on the tokens of each text, straight from the table."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from awqscope.diagnose.gate.evidence import read_numbers
from awqscope.diagnose.gate.findings import Finding, Missing
from awqscope.diagnose.gate.texts import RunNumbers, find_worst
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.statistics.bootstrap import RESAMPLES, TAIL, expanded_tail
from tests.help.runs import SAMPLE, cut_texts, write_comparison, write_run

Tokens = pd.DataFrame


def read(path: Path) -> RunNumbers:
    run = RunDirectory(path)
    return read_numbers(run, run.read())


def read_scored(path: Path) -> Tokens:
    """The tokens that are scored, in float64."""
    rows = pq.read_table(path / "tokens.parquet").to_pandas()
    return rows[rows["position"] > 0].astype({"nll_reference": float, "kl_uniform": float})


NUMBERS: dict[str, Callable[[Tokens, str], float]] = {
    "ppl_ratio": lambda t, m: float(
        np.exp(t[f"nll_{m}"].mean()) / np.exp(t["nll_reference"].mean())
    ),
    "delta_ppl": lambda t, m: float(
        np.exp(t[f"nll_{m}"].mean()) - np.exp(t["nll_reference"].mean())
    ),
    "kl": lambda t, m: float(t[f"kl_{m}"].astype(float).mean()),
    "kl_p999": lambda t, m: float(np.quantile(t[f"kl_{m}"].astype(float), 0.999)),
    "top1_agreement": lambda t, m: float(t[f"agree_{m}"].astype(float).mean()),
    # As llama.cpp prints them, in percent: of the token that is there, p(model) − p(reference).
    "delta_p": lambda t, m: float((np.exp(-t[f"nll_{m}"]) - np.exp(-t["nll_reference"])).mean()),
    "rms_delta_p": lambda t, m: float(
        np.sqrt(((np.exp(-t[f"nll_{m}"]) - np.exp(-t["nll_reference"])) ** 2).mean())
    ),
}


def test_every_number_of_every_text_and_model_is_that_of_its_tokens(tmp_path: Path) -> None:
    path = cut_texts(write_run(tmp_path), prose=22, code=18)
    numbers, rows = read(path), read_scored(path)
    spans = {"texts/prose.txt": (0, 22), "texts/code.txt": (22, 40)}
    assert [part.text for part in numbers.texts] == list(spans)
    assert numbers.models == ("uniform", "mixed") and numbers.missing == {}
    for part in (*numbers.texts, numbers.whole):
        first, last = spans.get(part.text, (0, 40))
        here = rows[rows["window"].between(first, last - 1)]
        assert (part.first, part.windows, part.tokens) == (first, last - first, len(here))
        for model in ("reference", "uniform", "mixed"):
            expected = math.exp(here[f"nll_{model}"].astype(float).mean())
            assert part.ppl[model] == pytest.approx(expected, rel=1e-6)
        for model in ("uniform", "mixed"):
            assert set(part.models[model]) == set(NUMBERS)
            for name, expect in NUMBERS.items():
                found = part.find(model, name)
                assert found is not None
                assert found.value == pytest.approx(expect(here, model), rel=1e-4, abs=1e-7), name
                assert found.low <= found.value <= found.high


def test_the_recovered_share_of_a_text_is_paired_by_window(tmp_path: Path) -> None:
    path = cut_texts(write_run(tmp_path), prose=22, code=18)
    code, rows = read(path).texts[1], read_scored(path)
    here = rows[rows["window"] >= 22].groupby("window")[["kl_mixed", "kl_uniform"]].mean()
    counts = np.random.default_rng(RunDirectory(path).read().spec.seed).multinomial(
        18, np.full(18, 1 / 18), size=RESAMPLES
    )
    drawn = 1 - (counts @ here["kl_mixed"]) / (counts @ here["kl_uniform"])
    tail = expanded_tail(18)
    assert isinstance(code.recovered, Finding)
    assert code.recovered.value == pytest.approx(
        1 - here["kl_mixed"].mean() / here["kl_uniform"].mean(), rel=1e-5
    )
    assert (code.recovered.low, code.recovered.high) == pytest.approx(
        tuple(np.quantile(drawn, [tail, 1 - tail])), rel=1e-5
    )


def test_a_single_text_has_the_numbers_of_all_and_of_the_headline() -> None:
    numbers, headline = read(SAMPLE), RunDirectory(SAMPLE).read().measured
    assert numbers.texts == (numbers.whole,)
    for model in ("uniform", "mixed"):
        for name, known in (("kl", headline.kl), ("kl_p999", headline.kl_p999)):
            found = numbers.whole.find(model, name)
            assert found is not None and found.value == pytest.approx(known.of(model), rel=1e-5)
    assert isinstance(numbers.whole.recovered, Finding)
    assert numbers.whole.recovered.value == pytest.approx(headline.recovered, rel=1e-6)


def test_a_comparison_has_its_candidate_and_nothing_recovered(tmp_path: Path) -> None:
    numbers = read(cut_texts(write_comparison(tmp_path), prose=22, code=18))
    assert numbers.models == ("candidate",)
    assert all(part.recovered is None for part in numbers.texts)
    assert set(numbers.texts[0].ppl) == {"reference", "candidate"}


def test_bounds_of_several_texts_leave_room_for_the_worst(tmp_path: Path) -> None:
    """Each has its share of the 2.5% in which its lower bound may be too high."""
    numbers = read(cut_texts(write_run(tmp_path), a=20, b=20))
    kl = read_scored(tmp_path / "sample").groupby("window")["kl_uniform"].mean().to_numpy()
    counts = np.random.default_rng(0).multinomial(20, np.full(20, 1 / 20), size=RESAMPLES)
    for part in numbers.texts:
        means = counts @ kl[part.first : part.first + 20] / 20
        found = part.find("uniform", "kl")
        assert found is not None
        assert (found.low, found.high) == pytest.approx(
            (
                np.quantile(means, expanded_tail(20, TAIL / 2)),
                np.quantile(means, 1 - expanded_tail(20)),
            ),
            rel=1e-5,
        )


def test_the_worst_text_is_the_one_with_the_largest_number(tmp_path: Path) -> None:
    path = cut_texts(write_run(tmp_path), a=3, b=5, c=12, d=20)
    rows = read_scored(path)
    names = np.repeat(["a", "b", "c", "d"], [3, 5, 12, 20])
    by_text = rows.groupby(names[rows["window"]])["kl_mixed"].mean()
    texts = read(path).texts
    worst = find_worst(texts, "mixed")
    assert worst is not None and worst.text == f"texts/{by_text.idxmax()}.txt"
    assert find_worst(texts, "nobody") is None


def test_a_model_that_was_not_measured_says_why(tmp_path: Path) -> None:
    path, compared = write_run(tmp_path), write_comparison(tmp_path)
    # A comparison's table has nothing in the columns of mixed.
    (compared / "tokens.parquet").replace(path / "tokens.parquet")
    numbers = read(path)
    assert numbers.missing == {"mixed": Missing("the mixed model was not measured")}
    assert numbers.models == ("uniform",) and numbers.whole.recovered is None
