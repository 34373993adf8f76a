"""Texts of every kind, and how they are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from diagnose.corpora import Corpus, cut_windows, load_corpus, load_tokenizer
from diagnose.sources import HubSource, parse_spec
from mixedprec.errors import InputError


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


def test_too_few_tokens(make_model: Callable[..., Path]) -> None:
    tokenizer = load_tokenizer(make_model("llama"))
    with pytest.raises(InputError, match="too few for two windows of 64"):
        cut_windows(Corpus("short.txt", "too short", ""), tokenizer, 64, None)


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tokenizer"):
        load_tokenizer(tmp_path)
