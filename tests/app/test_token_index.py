"""What is asked of a text is answered as pandas and Python's own strings answer it."""

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awqscope.app.store import Store
from awqscope.app.token_index import (
    MEASURES,
    MODELS,
    WHICH,
    WORST_TOKENS,
    TokenQuestion,
    find_text,
    index_tokens,
)
from tests.help.runs import SAMPLE, make_tokens, write_run, write_tokens


def add_mixed(table: pa.Table, seed: int = 1) -> pa.Table:
    """`table` with scores of a mixed model, as after a proof."""
    rng = np.random.default_rng(seed)
    first = table["position"].to_numpy() == 0
    made = {
        "nll_mixed": pa.array(rng.exponential(4.1, len(table)).astype(np.float32), mask=first),
        "kl_mixed": pa.array(rng.exponential(0.1, len(table)).astype(np.float32), mask=first),
        "agree_mixed": pa.array(rng.random(len(table)) < 0.9, mask=first),
    }
    for name, column in made.items():
        table = table.set_column(table.column_names.index(name), table.schema.field(name), column)
    return table


def select(table: pa.Table, question: TokenQuestion) -> pd.DataFrame:
    """The scored tokens that a question asks for, by pandas; `value` is what they are sorted by."""
    frame = table.select(
        [name for name in table.column_names if not name.startswith(("top_", "block_", "restored"))]
    ).to_pandas()
    frame["at"] = range(len(frame))
    delta = frame[f"nll_{question.model}"].astype("float32") - frame.nll_reference.astype("float32")
    frame["kl"], frame["delta_nll"] = frame[f"kl_{question.model}"], delta
    frame["value"] = frame[question.measure]
    frame = frame.dropna(subset=["value"])
    uniform, mixed = (frame[f"agree_{model}"] == False for model in MODELS)  # noqa: E712
    keeps = {
        "all": True,
        "changed": uniform if question.model == "uniform" else mixed,
        "repaired": uniform & (frame.agree_mixed == True),  # noqa: E712
        "still": uniform & mixed,
        "broken": ~uniform & mixed,
        "worse": frame.kl_mixed > frame.kl_uniform,
    }
    frame = frame[keeps[question.which] | pd.Series(False, frame.index)]
    if question.above is not None:
        frame = frame[frame.value >= question.above]
    if question.which == "worse":
        frame = frame.assign(value=frame.kl_mixed - frame.kl_uniform)
    return frame


def check_index(table: pa.Table, path: Path, row_group: int, question: TokenQuestion) -> None:
    write_tokens(path, table, row_group)
    found = index_tokens(pq.ParquetFile(path / "tokens.parquet"), question)
    frame, whole = select(table, question), select(table, TokenQuestion(model=question.model))
    means = whole.groupby("window").agg(kl=("kl", "mean"), delta_nll=("delta_nll", "mean"))
    means = means.sort_values(question.measure, ascending=False)
    if question.is_filter:
        means = means[means.index.isin(frame.window)]
    assert [row["window"] for row in found.windows] == list(means.index)
    for name in MEASURES:
        expected = pytest.approx(list(means[name]), rel=1e-5, abs=1e-6)
        assert [row[name] for row in found.windows] == expected
    assert {row["window"]: row["found"] for row in found.windows} == dict(
        frame.groupby("window").size()
    )
    assert found.found == len(frame)
    worst = frame.nlargest(WORST_TOKENS, "value")
    places = [(row["window"], row["position"], row["text"]) for row in found.tokens]
    assert places == list(zip(worst.window, worst.position, worst.text, strict=True))
    for name in MEASURES:
        assert [row[name] for row in found.tokens] == pytest.approx(list(worst[name]), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    windows=st.integers(1, 12),
    length=st.integers(2, 60),
    row_group=st.integers(1, 200),
    seed=st.integers(0, 99),
    question=st.builds(
        TokenQuestion,
        model=st.sampled_from(MODELS),
        measure=st.sampled_from(MEASURES),
        which=st.sampled_from(WHICH),
        above=st.sampled_from([None, 0.05, 0.3]),
    ),
)
def test_index_against_pandas(
    tmp_path_factory: pytest.TempPathFactory,
    windows: int,
    length: int,
    row_group: int,
    seed: int,
    question: TokenQuestion,
) -> None:
    table = add_mixed(make_tokens(windows, length, seed=seed), seed)
    check_index(table, tmp_path_factory.mktemp("index"), row_group, question)


def test_without_a_mixed_model_nothing_is_said_of_it(tmp_path: Path) -> None:
    table = make_tokens(3, 20)
    check_index(table, tmp_path, 7, TokenQuestion())
    found = index_tokens(pq.ParquetFile(tmp_path / "tokens.parquet"))
    assert not found.has_mixed and set(found.counts) == {"scored", "uniform"}
    assert {row["kl_mixed"] for row in found.tokens} == {None}
    for which in WHICH[2:]:
        asked = TokenQuestion(which=which)
        assert index_tokens(pq.ParquetFile(tmp_path / "tokens.parquet"), asked).found == 0


def test_index_of_tokens_without_scores(tmp_path: Path) -> None:
    write_tokens(tmp_path, make_tokens(3, 1))
    found = index_tokens(pq.ParquetFile(tmp_path / "tokens.parquet"))
    assert (found.windows, found.tokens, found.found) == ([], [], 0)


def test_the_samples_counts_are_those_of_its_headline() -> None:
    store = Store(SAMPLE.parent)
    index = store.token_index("sample")
    record = store.summary("sample").record
    assert index is not None and record is not None and index.has_mixed
    counts = index.counts
    for model in MODELS:
        same = 1 - counts[model] / counts["scored"]
        assert same == pytest.approx(record.measured.top1_agreement.of(model))
    assert counts["uniform"] == counts["repaired"] + counts["still"]
    assert counts["mixed"] == counts["broken"] + counts["still"]
    windows = store.token_index("sample", TokenQuestion(model="mixed")).windows
    mean = sum(row["kl"] for row in windows) / len(windows)
    assert mean == pytest.approx(record.measured.kl.mixed, rel=1e-5)


def search(texts: list[str], windows: list[int], text: str) -> list[bool]:
    """The tokens that a match touches, letter by letter."""
    marked = [False] * len(texts)
    for window in set(windows):
        here = [at for at, number in enumerate(windows) if number == window]
        letters = [at for at in here for _ in texts[at]]
        line = "".join(texts[at] for at in here)
        for match in re.finditer(f"(?={re.escape(text)})", line, re.IGNORECASE | re.ASCII):
            for place in range(match.start(), match.start() + len(text)):
                marked[letters[place]] = True
    return marked


WORDS = st.text(st.sampled_from("abA b\n·é"), max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), WORDS), max_size=20), WORDS.filter(bool))
def test_text_is_found_over_tokens_but_not_over_windows(
    rows: list[tuple[int, str]], text: str
) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    texts, windows = [word for _, word in rows], [window for window, _ in rows]
    table = pa.table(
        {"window": pa.array(windows, pa.int32()), "text": pa.array(texts, pa.string())}
    )
    meant = text.replace("·", " ")
    expected = search(texts, windows, meant)
    assert find_text(table, text).tolist() == expected
    for chunk in (1, 3):
        cut = pa.Table.from_batches(table.to_batches(max_chunksize=chunk), table.schema)
        assert find_text(cut, text).tolist() == expected


def test_text_may_be_asked_for_as_it_is_shown() -> None:
    table = pa.table({"window": [0, 0, 0], "text": ["a", "\n", " b\t"]})
    for text in ("a⏎", "\n·b", "⏎ b", "B⇥"):
        assert find_text(table, text).any()
    assert not find_text(table, "").any()


def test_found_tokens_of_a_window_are_those_of_the_index(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    table = add_mixed(make_tokens(6, 40))
    write_tokens(path, table, row_group=64)
    store = Store(tmp_path)
    for which, model, text in itertools.product(WHICH, MODELS, ("", "d1wor")):
        question = TokenQuestion(model=model, which=which, text=text, above=0.02)
        index = store.token_index("sample", question)
        assert index is not None
        found: dict[int, Any] = {n: store.found_tokens("sample", n, question) for n in range(6)}
        assert {row["window"]: row["found"] for row in index.windows} == {
            window: len(places) for window, places in found.items() if places
        }
        for row in index.tokens:
            assert row["position"] in found[row["window"]]
        if text:
            whole = store.token_index("sample", TokenQuestion(model, which=which, above=0.02))
            assert whole is not None and index.found <= whole.found
