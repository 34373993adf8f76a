"""The text in a file of the user's, whose name is taken as it stands: no pattern, no address.

A .txt file is one document. Of .jsonl, .json and .parquet the column `text` is read, or the only
one that holds strings. Anything that is not text is refused, with where it is and what mends it.
"""

import codecs
import io
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from awqscope.diagnose.runs.tables import DAMAGES
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.untrusted import parse_json

COLUMN = "text"
JOINT = "\n\n"
# By a file's first bytes: what it is, where it is not UTF-8, and the command that converts it.
CONVERSIONS = (
    (codecs.BOM_UTF32_LE, "UTF-32", "iconv -f UTF-32 -t UTF-8 --"),
    (codecs.BOM_UTF16_LE, "UTF-16", "iconv -f UTF-16 -t UTF-8 --"),
    (codecs.BOM_UTF16_BE, "UTF-16", "iconv -f UTF-16 -t UTF-8 --"),
    (b"\x1f\x8b", "compressed by gzip", "gzip -dc --"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "zstd -dc --"),
    (b"BZh", "compressed by bzip2", "bzip2 -dc --"),
    (b"\xfd7zXZ", "compressed by xz", "xz -dc --"),
)
# UTF-16 without a mark is UTF-8 with every other byte a NUL, by the parity of these.
UNMARKED = ((0, "UTF-16BE"), (1, "UTF-16LE"))
LOOKED_AT = 4096
# Two names that every turn of a conversation has, by the custom of its data set.
TURNS = (frozenset(("role", "content")), frozenset(("from", "value")))
TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


@dataclass
class Column:
    """What a column's rows hold. texts: of every row so far, empty where it has none. has_text:
    whether any is a string. odd: the first row, from 1, that holds anything else, and what."""

    texts: list[str] = field(default_factory=list)
    has_text: bool = False
    odd: tuple[int, str] | None = None
    is_conversation: bool = False


def read_text_file(path: Path) -> str:
    """The text of a file. InputError for one that is not what its ending says, and for rows that
    hold no text."""
    try:
        if path.suffix.lower() == ".parquet":
            return _read_parquet(path)
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error})", "check the file and its rights"
        ) from error
    text = decode_text(path, content)
    return text if path.suffix.lower() == ".txt" else _join(path, _read_rows(path, text))


def check_strings(spec: str, name: str, kind: pa.DataType) -> None:
    """Raise InputError where a column of this type holds no strings."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if any(is_kind(kind) for is_kind in TEXTS):
        return
    if _holds_turns(kind):
        raise _refuse_conversation(spec, name)
    raise InputError(
        f"the column {name} of {spec} is of type {kind}, not text", "write it as a string column"
    )


def decode_text(path: Path, content: bytes) -> str:
    """A file's text with \\n as line ends, without the mark that some programs put before it.
    InputError where it is not UTF-8."""
    beginning = content[:LOOKED_AT]
    for mark, what, command in CONVERSIONS:
        if beginning.startswith(mark):
            raise _refuse_encoding(path, f"it is {what}", command)
    for parity, encoding in UNMARKED:
        if beginning and beginning[parity::2].count(0) > len(beginning) / 4:
            raise _refuse_encoding(
                path, f"it looks like {encoding}", f"iconv -f {encoding} -t UTF-8 --"
            )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Counted from the file's beginning, which the codec that drops a mark does not.
        start = error.start + len(content) - len(error.object)
        found = f"byte {start + 1} is 0x{content[start]:02x}"
        raise _refuse_encoding(path, found, _guess_conversion(content, start)) from error
    return io.IncrementalNewlineDecoder(None, translate=True).decode(text, final=True)


def _guess_conversion(content: bytes, start: int) -> str:
    """The command that converts a text which is not UTF-8 from byte `start` (from 0) on."""
    if any(byte >= 0x80 for byte in content[:start]):
        # Letters before it are UTF-8: the rest is, but for what was damaged.
        return "iconv -c -f UTF-8 -t UTF-8 --"
    windows = any(0x80 <= byte < 0xA0 for byte in content)
    return f"iconv -f {'WINDOWS-1252' if windows else 'LATIN1'} -t UTF-8 --"


def _refuse_encoding(path: Path, what: str, command: str) -> InputError:
    target = path.with_name(f"{path.stem}.utf8{path.suffix}")
    written = f"{command} {shlex.quote(str(path))} > {shlex.quote(str(target))}"
    return InputError(f"{path} is not UTF-8: {what}", f"convert it, {written}")


def _read_rows(path: Path, text: str) -> Iterator[Any]:
    """The rows of a JSON file: a line each, or the entries of one array."""
    if text.lstrip()[:1] == "[":
        try:
            yield from parse_json(text)
        except ValueError as error:
            raise InputError(f"{path} is no JSON ({error})", "write an object a line") from error
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise InputError(
                f"line {number} of {path} is no JSON ({error})",
                'write a row a line, like {"text": "…"}',
            ) from error
        if not isinstance(row, dict | str):
            raise InputError(
                f"line {number} of {path} is {_name_kind(row)}, no row",
                'write a row a line, like {"text": "…"}',
            )
        yield row


def _join(path: Path, rows: Iterable[Any]) -> str:
    """The rows' texts as one."""
    columns: dict[str, Column] = {}
    count = 0
    for count, row in enumerate(rows, 1):
        entries = row if isinstance(row, dict) else {COLUMN: row}
        for name, value in entries.items():
            column = columns.setdefault(name, Column())
            column.texts += [""] * (count - 1 - len(column.texts))
            column.texts.append(value if isinstance(value, str) else "")
            if isinstance(value, str):
                column.has_text = True
            elif value is not None and column.odd is None:
                column.odd = count, _name_kind(value)
                column.is_conversation = _is_conversation(value)
    if not columns:
        raise InputError(f"{path} holds no rows", 'write a row a line, like {"text": "…"}')
    texts = [name for name, column in columns.items() if column.has_text]
    said = [name for name, column in columns.items() if column.is_conversation]
    name = _choose_column(str(path), tuple(columns), texts, said)
    column = columns[name]
    if column.is_conversation:
        raise _refuse_conversation(str(path), name)
    if column.odd is not None:
        number, kind = column.odd
        raise InputError(
            f"row {number} of {path} has {kind} in its column {name}, no string",
            "write every row's text as a string, or leave the row out",
        )
    return JOINT.join([*column.texts, *[""] * (count - len(column.texts))])


def _read_parquet(path: Path) -> str:
    with open(path, "rb") as file:
        try:
            opened = pq.ParquetFile(file)
            kinds = {entry.name: entry.type for entry in opened.schema_arrow}
            texts = [name for name, kind in kinds.items() if _is_text(kind)]
            said = [name for name, kind in kinds.items() if _holds_turns(kind)]
            name = _choose_column(str(path), tuple(kinds), texts, said)
            check_strings(str(path), name, kinds[name])
            rows = opened.read([name]).column(name).to_pylist()
        except DAMAGES as e:
            reason = (str(e).splitlines() or [type(e).__name__])[0]
            raise InputError(
                f"{path} cannot be loaded ({reason})",
                "check that the file is whole and what its ending says",
            ) from e
    if not rows:
        raise InputError(f"{path} holds no rows", "give a text")
    return JOINT.join(row or "" for row in rows)


def _choose_column(
    spec: str, names: tuple[str, ...], texts: list[str], conversations: list[str]
) -> str:
    """The column to read: `text`, or the only one of `texts` where none is of `conversations`: what
    stands beside a conversation is about it."""
    if COLUMN in names:
        return COLUMN
    if conversations:
        raise _refuse_conversation(spec, conversations[0])
    if len(texts) == 1:
        return texts[0]
    raise InputError(
        f"{spec} has no single text column (its columns: {', '.join(names)})",
        f"name the column to use `{COLUMN}`"
        if texts
        else f"give it a column `{COLUMN}` of strings",
    )


def _refuse_conversation(spec: str, name: str) -> InputError:
    return InputError(
        f"the column {name} of {spec} is a conversation, not text",
        "apply the chat template and write the result as a string column `text`",
    )


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(is_kind(kind) for is_kind in TEXTS if is_kind is not pa.types.is_null)


def _holds_turns(kind: pa.DataType) -> bool:
    """Whether a column of this type holds conversations: turns, or lists of them."""
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    return pa.types.is_struct(kind) and _are_turns({entry.name for entry in kind})


def _is_conversation(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and _is_conversation(value[0])
    return isinstance(value, dict) and _are_turns(set(value))


def _are_turns(names: set[str]) -> bool:
    return any(turn <= names for turn in TURNS)


def _name_kind(value: Any) -> str:
    return KINDS.get(type(value), "nothing")
