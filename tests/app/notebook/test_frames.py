"""Tables as frames: the rows of the files, by an index that finds each."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from awqscope import InputError, read_run
from awqscope.app.notebook.frames import INDEXES, NESTED, PLAIN_TOKENS
from awqscope.diagnose.runs.tables import TABLES
from tests.help.root import ROOT
from tests.help.runs import (
    SAMPLE,
    change_record,
    make_tokens,
    write_comparison,
    write_run,
    write_tokens,
)

LLM = ROOT / "reports" / "sample-smollm2"


def test_every_table_of_a_run_has_its_index() -> None:
    assert set(INDEXES) == set(TABLES)
    for name, index in INDEXES.items():
        assert set(index) - {"source"} <= set(TABLES[name].names), name


@pytest.mark.parametrize("name", [name for name in INDEXES if (LLM / f"{name}.parquet").exists()])
def test_a_frame_holds_what_the_file_does(name: str) -> None:
    frame = read_run(LLM).table(name)
    assert tuple(frame.index.names) == INDEXES[name]
    assert frame.index.is_unique or name == "promotions"
    rows = pq.read_table(LLM / f"{name}.parquet").to_pylist()
    assert len(frame) == len(rows)
    plain = frame.reset_index()
    for at in (0, len(rows) // 2, len(rows) - 1):
        for column in set(plain.columns) - {"source"}:
            found, wanted = plain[column][at], rows[at][column]
            if isinstance(wanted, list):
                assert list(found) == wanted
            elif wanted is None:
                assert pd.isna(found)
            else:
                assert found == wanted, (column, at)


def test_types_outlast_what_is_missing() -> None:
    run = read_run(SAMPLE)
    assert run.tokens["agree_uniform"].dtype == pd.BooleanDtype()
    assert run.tokens["agree_uniform"].mean() == pytest.approx(
        run.headline.loc["uniform", "top1_agreement"]
    )
    ranges = read_run(LLM).table("ranges").reset_index()
    assert ranges["block"].dtype == pd.Int32Dtype() and ranges["block"].isna().any()


def test_the_headline_is_a_row_a_model(tmp_path: Path) -> None:
    run = read_run(SAMPLE)
    frame, told = run.headline, run.record.measured
    assert list(frame.index) == ["reference", "uniform", "mixed"]
    assert frame.loc["mixed", "kl"] == told.kl.mixed
    assert tuple(frame.loc["uniform", ["kl_low", "kl_high"]]) == told.kl_interval.uniform
    assert tuple(frame.loc["mixed", ["delta_ppl", "delta_ppl_low", "delta_ppl_high"]]) == tuple(
        told.delta_ppl.mixed or ()
    )
    assert frame["bytes"].tolist() == [told.bytes.reference, told.bytes.uniform, told.bytes.mixed]
    assert frame["recovered"].isna().tolist() == [True, True, False]
    compared = read_run(write_comparison(tmp_path)).headline
    assert list(compared.index) == ["reference", "candidate"]
    assert compared.loc["candidate", "kl"] == frame.loc["mixed", "kl"]


def test_numbers_follow_from_the_tokens() -> None:
    """The frames are enough to make the headline of: by numpy alone."""
    run = read_run(SAMPLE)
    scored = run.tokens.dropna(subset=["kl_uniform"])
    for model in ("uniform", "mixed"):
        kl = scored[f"kl_{model}"].to_numpy(dtype=np.float64).mean()
        assert kl == pytest.approx(run.headline.loc[model, "kl"], rel=1e-5)
    nll = scored["nll_reference"].to_numpy(dtype=np.float64)
    assert np.exp(nll.mean()) == pytest.approx(run.headline.loc["reference", "ppl"], rel=1e-5)


def test_tokens_are_chosen_by_column_and_window() -> None:
    run = read_run(SAMPLE)
    some = run.read_tokens(["text", "block_kl"], [7, 3])
    assert list(some.columns) == ["text", "block_kl"]
    assert some.index.get_level_values("window").unique().tolist() == [3, 7]
    whole = run.tokens
    assert not set(NESTED) & set(whole.columns) and set(whole.columns) <= set(PLAIN_TOKENS)
    pd.testing.assert_series_equal(
        some["text"], whole.loc[(slice(None), [3, 7]), "text"], check_index=True
    )
    worst = run.read_tokens(["block_kl"]).dropna()
    assert len(worst) and all(len(each) == 8 for each in worst["block_kl"])


def test_texts_are_told_apart(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    record = read_run(path).record.to_json()
    definition = record["ppl_definition"]
    parts = [("texts/a.txt", 0, 25), ("texts/b.txt", 25, 15)]
    definition["slices"] = [
        {"text": text, "sha256": "0" * 64, "first_window": first, "windows": count}
        for text, first, count in parts
    ]
    change_record(path, ppl_definition=definition)
    run = read_run(path)
    assert run.tokens.groupby("source").size().to_dict() == {"a.txt": 25 * 256, "b.txt": 15 * 256}
    assert run.read_tokens(["text"], [24, 25]).index.get_level_values(0).unique().tolist() == [
        "a.txt",
        "b.txt",
    ]


def test_what_is_not_asked_for_is_not_read(tmp_path: Path) -> None:
    """A page of a late window is damaged: windows before it are read all the same."""
    path = write_run(tmp_path)
    write_tokens(path, make_tokens(40, 256), row_group=1024)
    file = path / "tokens.parquet"
    with pq.ParquetFile(file) as table:
        late = table.metadata.row_group(table.num_row_groups - 1)
        start = late.column(0).data_page_offset
    content = bytearray(file.read_bytes())
    content[start + 8 : start + 40] = bytes(32)
    file.write_bytes(bytes(content))
    run = read_run(path)
    assert len(run.read_tokens(["kl_uniform"], [0, 5])) == 2 * 256
    with pytest.raises(InputError, match="cannot be read"):
        run.read_tokens(["kl_uniform"], [39])
    with pytest.raises(InputError, match="cannot be read"):
        _ = run.tokens


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda run: run.linears, r"linears.parquet is missing: copy the whole run"),
        (lambda run: run.table("lines"), "there is no table 'lines': the tables are blocks"),
        (lambda run: run.table("units", ["weight"]), "has no column weight"),
        (lambda run: run.read_tokens(["words"]), "has no column words"),
        (lambda run: run.read_tokens(["words"], [0]), "has no column words"),
        (lambda run: run.read_tokens(windows=[3, 40]), "no window 40: give some of 0 to 39"),
    ],
)
def test_what_is_not_there_is_said(ask: object, what: str) -> None:
    with pytest.raises(InputError, match=what):
        ask(read_run(SAMPLE))  # type: ignore[operator]
