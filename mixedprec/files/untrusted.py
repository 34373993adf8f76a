"""Files that somebody else wrote, read as data and within limits: sizes are checked before anything
is taken into memory, and what no writer of good faith makes is refused.

Two kinds of error: the readers of a text raise OSError or ValueError, so that each caller says what
its file is; `check_directory` and `check_config` raise the InputError themselves.
"""

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from awqscope.mixedprec.errors import InputError

MOST_JSON_BYTES = 64 * 2**20
# Vocabularies of a quarter of a million entries take some 35 MB.
MOST_TOKENIZER_BYTES = 512 * 2**20
READ_WHOLE = {".json", ".jinja", ".md", ".model", ".txt"}
# transformers' "no limit", 10³⁰ as a float, has 31 digits.
MOST_DIGITS = 40
# Entries of a model's config.json that size what is built from it, and the most that they may be.
SIZES: Mapping[str, int] = {
    "num_hidden_layers": 4096,
    "num_layers": 4096,
    "n_layer": 4096,
    "hidden_size": 2**20,
    "word_embed_proj_dim": 2**20,
    "intermediate_size": 2**22,
    "ffn_dim": 2**22,
    "moe_intermediate_size": 2**22,
    "shared_expert_intermediate_size": 2**22,
    "num_attention_heads": 2**14,
    "num_key_value_heads": 2**14,
    "head_dim": 2**14,
    "vocab_size": 2**24,
    "num_experts": 2**16,
    "num_local_experts": 2**16,
    "num_experts_per_tok": 2**16,
    "max_position_embeddings": 2**31,
    "n_layers": 4096,
    "n_embd": 2**20,
    "d_model": 2**20,
    "n_inner": 2**22,
    "n_head": 2**14,
    "n_heads": 2**10,
    "num_kv_heads": 2**14,
    "rotary_dim": 2**14,
    "q_lora_rank": 2**20,
    "kv_lora_rank": 2**20,
    "qk_nope_head_dim": 2**14,
    "qk_rope_head_dim": 2**14,
    "v_head_dim": 2**14,
    "n_positions": 2**20,
    "max_seq_len": 2**18,
}
# A pattern may match a linear's name in as many ways, counted as if each quantifier could stop at
# any of so many characters: four beside a choice of a few names, or one beside a list of blocks.
TYPICAL_NAME = 32
MOST_WAYS = 2**26
# May be 0 in configurations that mean "none" by it.
MAY_BE_ZERO = {"shared_expert_intermediate_size", "moe_intermediate_size"}


def read_text(path: Path, most: int = MOST_JSON_BYTES) -> str:
    """A text in UTF-8, from a file or a pipe. OSError; ValueError where it is not UTF-8, or is
    longer than `most` bytes."""
    with open(path, "rb") as file:
        return _decode(file.read(most + 1), most)


def read_json(path: Path, most: int = MOST_JSON_BYTES) -> Any:
    """What a JSON file holds. OSError where it cannot be read; ValueError for one that is longer
    than `most` bytes, is not UTF-8, or holds what `parse_json` refuses, and for anything but a
    regular file: reading a pipe would wait for its writer."""
    with open(path, "rb", opener=open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        return parse_json(_decode(file.read(most + 1), most))


def _decode(content: bytes, most: int) -> str:
    if len(content) > most:
        raise ValueError(f"it is longer than {most:,} bytes")
    return content.decode("utf-8")


def open_at_once(path: str, flags: int) -> int:
    """An opener for `open` that does not wait where the file is a pipe without a writer."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def parse_json(text: str, *, unique: bool = False) -> Any:
    """What a JSON text holds. ValueError for text that is not JSON or is nested too deeply, for
    numbers that are not finite or have more than MOST_DIGITS digits, for halves of surrogate pairs,
    and, if `unique`, for an object that has a name twice."""
    try:
        found = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
            parse_int=_parse_int,
            object_pairs_hook=_read_unique if unique else None,
        )
        if "\\u" in text:
            # A lone surrogate is in no text that could be written again.
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _parse_float(text: str) -> float:
    number = float(text)
    if abs(number) == float("inf"):
        raise ValueError(f"the number {text[:MOST_DIGITS]} is too large")
    return number


def _parse_int(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number has {len(text):,} digits")
    return int(text)


def _read_unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{twice[:80]!r} is there twice")
    return found


def check_pattern(pattern: str) -> None:
    """Raise ValueError for text that is not a regular expression, or for one whose matching may
    take too long: a repeated group that repeats or chooses inside takes time exponential in the
    text, and every quantifier and choice beside others multiplies the ways to match."""

    def refuse() -> ValueError:
        return ValueError(f"{pattern[:80]!r} may take for ever to match")

    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern[:80]!r} is no regular expression ({error})") from error
    # Escaped characters and classes stand for one character whatever is in them.
    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", pattern, flags=re.DOTALL)
    if re.search(r"\(\?(#|[a-zA-Z]*x)", bare):
        # Comments may hold brackets of their own.
        raise refuse()
    # Lazy and possessive quantifiers are quantifiers; "?" after a bracket is none.
    bare = re.sub(r"([*+?}])[?+]", r"\1", bare.replace("(?", "("))
    inside, ways = [False], 1
    branches = [1]
    for at, char in enumerate(bare):
        if char == "(":
            inside.append(False)
            branches.append(1)
        elif char == ")" and len(inside) > 1:
            ambiguous = inside.pop()
            if ambiguous and bare[at + 1 : at + 2] in {"*", "+", "{"}:
                raise refuse()
            inside[-1] |= ambiguous
            ways *= branches.pop()
        elif char == "|":
            branches[-1] += 1
        inside[-1] |= char in "*+{?|"
        is_exact = char == "{" and re.match(r"\{\d+\}", bare[at:])
        if char in "*+{" and not is_exact:
            ways *= TYPICAL_NAME
        elif char == "?":
            ways *= 2
    if ways * branches[0] > MOST_WAYS:
        raise refuse()


def check_directory(folder: Path) -> None:
    """Raise InputError for a model directory with a link that leads out of it (but within the hub's
    cache of that model, whose files are links), with anything but files and directories in it, or
    with JSON of absurd size. Hidden files are not looked at, and must not be read: see
    `list_visible`."""
    allowed = _own_ground(folder)
    for path in list_files(folder):
        try:
            resolved = path.resolve(strict=True)
            status = resolved.stat()
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"{path} is a link that leads nowhere", "download the whole checkpoint again"
            ) from error
        if not resolved.is_relative_to(allowed):
            raise InputError(
                f"{path} is a link out of its directory ({resolved})",
                "put the file itself there: what a model directory links to is not read",
            )
        if stat.S_ISDIR(status.st_mode) and _is_walked(resolved, folder):
            continue
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is no regular file", "take it out of the model's directory")
        most = MOST_TOKENIZER_BYTES if path.name.startswith("tokenizer") else MOST_JSON_BYTES
        if path.suffix in READ_WHOLE and status.st_size > most:
            raise InputError(
                f"{path} has {status.st_size:,} bytes, more than any model's",
                "download the checkpoint again",
            )


def list_visible(folder: Path, pattern: str) -> list[Path]:
    """The files of a model directory whose names match, in order, without hidden ones, which
    `check_directory` has not looked at."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def _is_walked(resolved: Path, folder: Path) -> bool:
    """Whether a directory that a link leads to is one of those looked through anyway."""
    real = folder.resolve()
    return resolved.is_relative_to(real) and not any(
        part.startswith(".") for part in resolved.relative_to(real).parts
    )


def _own_ground(folder: Path) -> Path:
    """Where links may lead: the directory, or the hub's cache of this one model."""
    real = folder.resolve()
    if real.parent.name == "snapshots" and real.parent.parent.name.startswith("models--"):
        return real.parent.parent
    return real


def list_files(folder: Path) -> Iterator[Path]:
    """Everything in a model directory and its subdirectories but directories, and every link;
    nothing that is hidden."""
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        folders[:] = [n for n in folders if not n.startswith(".") and n not in links]
        yield from (Path(root, name) for name in [*files, *links] if not name.startswith("."))


def check_config(path: Path, config: Any) -> None:
    """Raise InputError for a config.json that is not an object, or that has sizes which no model
    has: building even the shell of such a model would not end."""

    def refuse(what: str) -> InputError:
        return InputError(f"{path} {what}", "use the config.json that came with these weights")

    if not isinstance(config, dict):
        raise refuse("holds no JSON object")
    for name, value in _walk_entries(config):
        if name not in SIZES or value is None or isinstance(value, list | dict):
            continue
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not (0 if name in MAY_BE_ZERO else 1) <= value <= SIZES[name]:
            raise refuse(f"says {name} = {str(value)[:40]}, which no model has")


def _walk_entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every entry of a configuration and of those nested in it."""
    for name, value in config.items():
        yield name, value
        if isinstance(value, dict):
            yield from _walk_entries(value)


def check_blocks(path: Path, blocks: str, expected: int, names: Mapping[str, Any]) -> None:
    """Raise InputError unless the tensors are of as many blocks, in the list of modules `blocks`,
    as config.json says. Checkpoints may leave out what comes before the list's own name."""
    last = re.escape(blocks.rpartition(".")[2])
    pattern = re.compile(rf"(?:^|\.){last}\.([0-9]{{1,6}})\.")
    found = {int(match[1]) for match in map(pattern.search, names) if match}
    if len(found) < expected:
        raise InputError(
            f"{path} has tensors of {len(found)} blocks, its config.json says {expected}",
            "use the config.json that came with these weights, or a checkpoint that was saved "
            "whole",
        )
