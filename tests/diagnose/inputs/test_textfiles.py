"""Files of text: any name is only a name, any string column is one, and what is refused says how
it is mended."""

import gzip
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from awqscope.diagnose.inputs.corpora import load_corpus, load_tokenizer
from awqscope.diagnose.inputs.sources import HubSource, parse_spec
from awqscope.mixedprec.errors import InputError

# Each means something to a shell, to `glob`, or to the libraries that take addresses for paths.
NAMES = (
    "held[1].txt",
    "held[!1].txt",
    "held*.txt",
    "hel?1.txt",
    "{held1,other}.txt",
    "**.txt",
    "zip::held1.txt",
    "zip:held1.txt",
    "http:/held1.txt",
    "file:/held1.txt",
    "memory:/held1.txt",
    "-held1.txt",
    "--help.txt",
    "~.txt",
    "~/held1.txt",
    "$HOME.txt",
    "held 1.txt",
    "held#1.txt",
    "held%31.txt",
    "held\n1.txt",
    "hëld1.txt",
    "hub:a:b:c.txt",
    "wikitext2:test.txt",
    "UPPER.TXT",
)
ROWS = ["one", "", "three, with ünïcode\n\nand lines", None, "\u2028 five"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_only_a_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is the file of that name, not the ones that it would match as a pattern."""
    monkeypatch.chdir(tmp_path)
    for decoy in ("held1.txt", "held2.txt", "other.txt"):
        Path(decoy).write_text("a decoy")
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(f"the text of {name}")
    for spec in (name, str(tmp_path / name)):
        assert load_corpus(spec).text == f"the text of {name}"
        assert load_corpus(spec).spec == spec


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
def test_names_of_tables_are_only_names(suffix: str, tmp_path: Path) -> None:
    for name, text in ((f"a1{suffix}", "decoy"), (f"a[1]{suffix}", "wanted")):
        if suffix == ".parquet":
            pq.write_table(pa.table({"text": [text]}), tmp_path / name)
        else:
            (tmp_path / name).write_text(json.dumps({"text": text}))
    assert load_corpus(str(tmp_path / f"a[1]{suffix}")).text == "wanted"


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.parquet"])
def test_as_datasets_reads_a_plain_name(name: str, tmp_path: Path) -> None:
    """The same text, and so the same hash, as the library gives that used to read the files."""
    path = tmp_path / name
    builder, options = "json", {}
    if name == "a.txt":
        builder, options = "text", {"sample_by": "document"}
        path.write_bytes(b"first\r\n\n second \rthird\n\n")
    elif name == "a.parquet":
        builder = "parquet"
        pq.write_table(pa.table({"n": range(5), "text": ROWS}), path)
    elif name == "a.jsonl":
        lines = [json.dumps({"n": n, "text": row}) for n, row in enumerate(ROWS)]
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, ""]).encode())
    else:
        path.write_text(json.dumps([{"n": n, "text": row} for n, row in enumerate(ROWS)], indent=1))
    rows = load_dataset(
        builder, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"), **options
    )
    assert load_corpus(str(path)).text == "\n\n".join(row or "" for row in rows["text"])


STRING_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "large dictionary": pa.dictionary(pa.int8(), pa.large_string()),
}


@pytest.mark.parametrize("kind", STRING_TYPES)
@pytest.mark.parametrize("name", ["text", "body"])
def test_every_type_of_string_is_text(kind: str, name: str, tmp_path: Path) -> None:
    column = pa.array(ROWS, pa.string()).cast(STRING_TYPES[kind])
    pq.write_table(pa.table({"n": range(5), name: column}), tmp_path / "a.parquet")
    found = load_corpus(str(tmp_path / "a.parquet"))
    assert found.text == "\n\n".join(row or "" for row in ROWS)


def write_rows(path: Path, rows: list[Any]) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def refusal(spec: str) -> InputError:
    with pytest.raises(InputError) as refused:
        load_corpus(spec)
    assert "\n" not in str(refused.value)
    return refused.value


SAID = [
    [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": str(i)}]
    for i in range(4)
]
SHARED = [[{"from": "human", "value": f"{i}?"}, {"from": "gpt", "value": str(i)}] for i in range(4)]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("rows", "column"),
    [
        ([{"messages": said} for said in SAID], "messages"),
        ([{"text": said} for said in SAID], "text"),
        ([{"conversations": said} for said in SHARED], "conversations"),
        # A lone string beside a conversation is its name, not the text to measure on.
        ([{"id": f"row {n}", "messages": said} for n, said in enumerate(SAID)], "messages"),
    ],
)
def test_a_conversation_becomes_text_by_its_template(
    suffix: str,
    rows: list[dict[str, Any]],
    column: str,
    tmp_path: Path,
    make_model: Callable[..., Path],
) -> None:
    refused = refusal(write_rows(tmp_path / f"chat{suffix}", rows))
    assert f"the column {column} of" in refused.what and "conversation, not text" in refused.what
    assert (
        refused.remedy == "apply the chat template and write the result as a string column `text`"
    )
    tokenizer = load_tokenizer(make_model("llama"))
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role or m['from'] }}>{{ m.content or m.value }}{% endfor %}"
    )
    written = [{"text": tokenizer.apply_chat_template(row[column], tokenize=False)} for row in rows]
    text = load_corpus(write_rows(tmp_path / f"written{suffix}", written)).text
    assert text == "\n\n".join(row["text"] for row in written) and "0?" in text


@pytest.mark.parametrize(
    ("odd", "kind"),
    [
        (7, "a number"),
        (1.5, "a number"),
        (True, "true or false"),
        (["a"], "a list"),
        ({}, "an obj"),
    ],
)
def test_the_row_that_is_no_text_is_named(odd: object, kind: str, tmp_path: Path) -> None:
    rows: list[Any] = [{"text": "one"}, {"text": None}, {"text": odd}, {"text": "four"}]
    refused = refusal(write_rows(tmp_path / "a.jsonl", rows))
    assert f"row 3 of {tmp_path / 'a.jsonl'} has {kind}" in refused.what
    assert "as a string, or leave the row out" in refused.remedy
    as_string = write_rows(tmp_path / "b.jsonl", [*rows[:2], {"text": str(odd)}, rows[3]])
    assert load_corpus(as_string).text == f"one\n\n\n\n{odd}\n\nfour"
    assert load_corpus(write_rows(tmp_path / "c.jsonl", [*rows[:2], rows[3]])).text


def test_a_parquet_column_of_numbers_names_its_type(tmp_path: Path) -> None:
    refused = refusal(write_rows(tmp_path / "a.parquet", [{"text": 1}, {"text": 2}]))
    assert "the column text of" in refused.what and "is of type int64, not text" in refused.what
    assert load_corpus(write_rows(tmp_path / "b.parquet", [{"text": "1"}, {"text": "2"}])).text


def test_several_string_columns_lead_to_one_called_text(tmp_path: Path) -> None:
    for suffix in (".jsonl", ".parquet"):
        rows = [{"body": "x", "title": "y"}]
        refused = refusal(write_rows(tmp_path / f"a{suffix}", rows))
        assert "its columns: body, title" in refused.what
        assert refused.remedy == "name the column to use `text`"
        renamed = [{"text": "x", "title": "y"}]
        assert load_corpus(write_rows(tmp_path / f"b{suffix}", renamed)).text == "x"
        none = refusal(write_rows(tmp_path / f"c{suffix}", [{"n": 1}]))
        assert none.remedy == "give it a column `text` of strings"


LETTERS = "Das Wörterbuch enthält Wörter – „viele“. " * 50
LATIN = "Das Wörterbuch enthält Wörter. " * 50


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LATIN.encode("latin-1"), "byte 6 is 0xf6"),
        (LETTERS.encode("cp1252"), "byte 6 is 0xf6"),
        (LATIN.encode("utf-16"), "it is UTF-16"),
        (b"\xfe\xff" + LATIN.encode("utf-16-be"), "it is UTF-16"),
        (LATIN.encode("utf-16-le"), "it looks like UTF-16LE"),
        (LATIN.encode("utf-16-be"), "it looks like UTF-16BE"),
        (LATIN.encode("utf-32"), "it is UTF-32"),
        (gzip.compress(LATIN.encode(), mtime=0), "it is compressed by gzip"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "it's [1] \u00e4.txt", "-a.txt"])
def test_what_is_not_utf8_is_converted_by_the_command_given(
    content: bytes, said: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    refused = refusal(name)
    assert f"{name} is not UTF-8: {said}" in refused.what
    command = refused.remedy.removeprefix("convert it, ")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    found = load_corpus(name.replace(".txt", ".utf8.txt")).text
    assert found == (LETTERS if b"\x96" in content else LATIN)


def test_a_damaged_byte_is_named_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Wörter ".encode() + b"\xff" + "und Sätze".encode())
    refused = refusal(str(tmp_path / "a.txt"))
    assert "byte 9 is 0xff" in refused.what
    subprocess.run(refused.remedy.removeprefix("convert it, "), shell=True, check=False)
    assert load_corpus(str(tmp_path / "a.utf8.txt")).text == "Wörter und Sätze"


def test_a_mark_before_the_text_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + "Wörter".encode())
    assert load_corpus(str(tmp_path / "a.txt")).text == "Wörter"
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfab\xff")
    assert "byte 6 is 0xff" in refusal(str(tmp_path / "b.txt")).what


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a"}\n\n{"text": "b"\n', "line 3 of"),
        ('{"text": "a"}\n[1]\n', "line 2 of .* is a list, no row"),
        ('{"text": "a\\ud800"}\n', "line 1 of .* is no JSON"),
        ('["a", {]', "is no JSON"),
        ("", "holds no rows"),
        ("\n\n", "holds no rows"),
        ("[]", "holds no rows"),
    ],
)
def test_lines_that_are_no_rows_are_named(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    assert re.search(said, refusal(str(tmp_path / "a.jsonl")).what)


def test_rows_without_the_column_are_empty(tmp_path: Path) -> None:
    rows = [{"n": 1}, {"text": "two"}, {"n": 3}, {"text": "four", "n": 4}, {"n": 5}]
    assert load_corpus(write_rows(tmp_path / "a.jsonl", rows)).text == "\n\ntwo\n\n\n\nfour\n\n"
    (tmp_path / "b.json").write_text('["one", "two"]')
    assert load_corpus(str(tmp_path / "b.json")).text == "one\n\ntwo"


def test_what_is_no_regular_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe is not waited for, a directory is called one; a link is the file it leads to."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.txt")
    assert "is no regular file" in refusal("pipe.txt").what
    Path("folder.txt").mkdir()
    assert "folder.txt is a directory" in refusal("folder.txt").what
    Path("real.txt").write_text("a text")
    Path("link.txt").symlink_to("real.txt")
    assert load_corpus("link.txt").text == "a text"
    Path("dangling.txt").symlink_to("nothing.txt")
    assert "there is no file dangling.txt" in refusal("dangling.txt").what
    Path("words").write_text("a text")
    assert "ends in .txt" in refusal("words").remedy
    for name in ("x" * 300, f"{'x' * 300}.txt"):
        assert "cannot be read" in refusal(name).what


def test_a_missing_file_is_looked_for_nearby(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "held-out.txt").write_text("a text")
    refused = refusal(str(tmp_path / "held_out.txt"))
    assert refused.remedy == f"did you mean {tmp_path / 'held-out.txt'}?"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(tmp_path / "held-out.txt") in refusal("~/held-out.txt").remedy


def test_a_data_sets_column_must_hold_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset

    rows = Dataset.from_dict({"text": ["a", None, "b"], "label": [1, 2, 3], "messages": SAID[:3]})
    monkeypatch.setattr("datasets.load_dataset", lambda *names, split: rows)
    assert load_corpus("hub:a/b:train:text").text == "a\n\n\n\nb"
    assert "is of type int64, not text" in refusal("hub:a/b:train:label").what
    assert "is a conversation, not text" in refusal("hub:a/b:train:messages").what
    assert isinstance(parse_spec("hub:a/b:train:text"), HubSource)
