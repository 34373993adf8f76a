"""Texts of every kind, and how they are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awqscope.diagnose.inputs.corpora import (
    Corpus,
    cut_slices,
    cut_windows,
    load_corpus,
    load_tokenizer,
    spread_windows,
)
from awqscope.diagnose.inputs.sources import HubSource, parse_spec
from awqscope.mixedprec.errors import InputError


def test_a_text_file_is_one_document_as_it_is(tmp_path: Path) -> None:
    text = "first\n\n  second line \n\n\nthird, no newline"
    (tmp_path / "a.txt").write_text(text)
    assert load_corpus(str(tmp_path / "a.txt")).text == text


def test_rows_are_joined_by_blank_lines(tmp_path: Path) -> None:
    rows = [{"text": "one", "n": 1}, {"text": "", "n": 2}, {"text": "three", "n": 3}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert load_corpus(str(tmp_path / name)).text == "one\n\n\n\nthree"


def test_a_lone_string_column_serves_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "x", "id": 1}\n')
    assert load_corpus(str(tmp_path / "a.jsonl")).text == "x"
    (tmp_path / "b.jsonl").write_text('{"body": "x", "title": "y"}\n')
    with pytest.raises(InputError, match="no single text column"):
        load_corpus(str(tmp_path / "b.jsonl"))


def test_specs() -> None:
    assert parse_spec("wikitext2") == HubSource(
        "Salesforce/wikitext", "wikitext-2-raw-v1", "test", "text"
    )
    assert parse_spec("hub:a/b:train:body") == HubSource("a/b", None, "train", "body")
    assert parse_spec("hub:a/b:c:train:body") == HubSource("a/b", "c", "train", "body")


@pytest.mark.parametrize("spec", ["", "wikitext3", "text.csv", "hub:a/b", "hub:a:b:c:d:e"])
def test_specs_without_meaning(spec: str) -> None:
    with pytest.raises(InputError, match="is no text that can be loaded: give wikitext2"):
        parse_spec(spec)


def test_a_missing_or_broken_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        load_corpus(str(tmp_path / "none.txt"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_corpus(str(tmp_path / "a.parquet"))


def test_windows_tile_the_text_and_spread(make_model: Callable[..., Path], text_file: Path) -> None:
    tokenizer = load_tokenizer(make_model("llama"))
    corpus = load_corpus(str(text_file))
    tokens = tokenizer(corpus.text)["input_ids"]
    windows = cut_windows(corpus, tokenizer, 64, None)
    assert windows.flatten().tolist() == tokens[: windows.numel()]
    assert len(tokens) - windows.numel() < 64
    few = cut_windows(corpus, tokenizer, 64, 3)
    assert torch.equal(few, windows[[0, round((len(windows) - 1) / 2), len(windows) - 1]])


def test_slices_are_each_texts_own_windows(
    make_model: Callable[..., Path], text_file: Path
) -> None:
    tokenizer = load_tokenizer(make_model("llama"))
    whole = load_corpus(str(text_file))
    half = Corpus("half", whole.text[: len(whole.text) // 2], "")
    first, second = cut_slices([whole, half], tokenizer, 64, None)
    assert torch.equal(first, cut_windows(whole, tokenizer, 64, None))
    assert torch.equal(second, cut_windows(half, tokenizer, 64, None))
    first, second = cut_slices([whole, half], tokenizer, 64, 6)
    assert torch.equal(first, cut_windows(whole, tokenizer, 64, 4))
    assert torch.equal(second, cut_windows(half, tokenizer, 64, 2))
    (alone,) = cut_slices([whole], tokenizer, 64, 5)
    assert torch.equal(alone, cut_windows(whole, tokenizer, 64, 5))


@given(st.lists(st.integers(2, 400), min_size=1, max_size=5), st.integers(2, 1000))
def test_windows_are_spread_in_proportion(available: list[int], count: int) -> None:
    if count < 2 * len(available) and count < sum(available):
        with pytest.raises(InputError, match=f"give at least {2 * len(available)}"):
            spread_windows(available, count)
        return
    found = spread_windows(available, count)
    assert sum(found) == min(count, sum(available))
    assert all(2 <= got <= have for got, have in zip(found, available, strict=True))
    # Only the texts that get their least keep the others from their exact share.
    spared = sum(max(0.0, 2 - count * have / sum(available)) for have in available)
    for got, have in zip(found, available, strict=True):
        exact = min(have, count * have / sum(available))
        assert exact - spared - 1 < got < max(2, exact) + 1


def test_too_few_tokens(make_model: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(make_model("llama"))
    with pytest.raises(InputError, match="too few for two windows of 64"):
        cut_windows(Corpus("short.txt", "too short", ""), tokenizer, 64, None)


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tokenizer"):
        load_tokenizer(tmp_path)
