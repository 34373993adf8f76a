"""Texts to calibrate on and to measure on: files, and data sets of the hub through `datasets`.

A .txt file is one document, taken as it is; the rows of anything else are joined by a blank line,
as the GPTQ and AWQ papers do for WikiText-2.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from awqscope.diagnose.inputs.sources import HubSource, parse_spec
from awqscope.diagnose.inputs.textfiles import JOINT, check_strings, read_text_file
from awqscope.mixedprec.errors import InputError

# A text is read and hashed, to find what is known of it, without what takes seconds to import.
if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

LEAST_WINDOWS = 2


@dataclass(frozen=True)
class Corpus:
    """A text, the SPEC it came from, and its SHA-256."""

    spec: str
    text: str
    hash: str


def load_corpus(spec: str) -> Corpus:
    """Load a SPEC's text. InputError where it cannot be read."""
    source = parse_spec(spec)
    text = read_text_file(source) if isinstance(source, Path) else _load_rows(spec, source)
    return Corpus(spec, text, hashlib.sha256(text.encode()).hexdigest())


def _load_rows(spec: str, source: HubSource) -> str:
    """The text of a data set on the hub."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    arguments = (source.name, source.config) if source.config else (source.name,)
    try:
        rows = load_dataset(*arguments, split=source.split)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{spec} cannot be loaded ({reason})",
            "check the name and the network, or give a local file",
        ) from error
    if source.column not in rows.column_names:
        columns = ", ".join(rows.column_names)
        raise InputError(f"{spec} has no column {source.column}", f"choose from {columns}")
    check_strings(spec, source.column, rows.features.arrow_schema.field(source.column).type)
    return JOINT.join(row or "" for row in rows[source.column])


def load_tokenizer(path: Path, *, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """The tokenizer beside a model. InputError where there is none, or none without code of its own
    that is not trusted."""
    missing = InputError(
        f"{path} has no tokenizer that can be loaded", "copy the model's tokenizer files there"
    )
    if not has_tokenizer(path):
        raise missing
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except MemoryError:
        raise
    except Exception as error:
        # A damaged file makes the tokenizers' own library raise nothing more definite.
        if "trust_remote_code" in str(error):
            raise InputError(
                f"the tokenizer in {path} comes with Python of its own, which is not run",
                "give --trust-remote-code if you trust whoever made it",
            ) from error
        raise missing from error


def has_tokenizer(path: Path) -> bool:
    """Whether a model's directory holds a tokenizer, of whatever kind."""
    return any(path.glob("tokenizer*")) or (path / "vocab.json").exists()


def cut_windows(
    corpus: Corpus, tokenizer: "PreTrainedTokenizerBase", length: int, count: int | None
) -> "Tensor":
    """Non-overlapping windows [n, length] of the corpus's tokens; the short tail is dropped.

    count: how many to keep, spread evenly over the text; all by default. InputError where the text
    does not fill two windows: an interval needs more than one.
    """
    return pick_windows(tile_windows(corpus, tokenizer, length), count)


def cut_slices(
    corpora: Sequence[Corpus], tokenizer: "PreTrainedTokenizerBase", length: int, count: int | None
) -> "list[Tensor]":
    """Non-overlapping windows [n, length] of each corpus's tokens; the short tails are dropped.

    count: how many to keep of all corpora together; all by default. InputError for a corpus that
    does not fill two windows, and for a count that leaves one fewer than two.
    """
    tiled = [tile_windows(corpus, tokenizer, length) for corpus in corpora]
    counts = spread_windows([len(windows) for windows in tiled], count)
    return [pick_windows(*pair) for pair in zip(tiled, counts, strict=True)]


def spread_windows(available: Sequence[int], count: int | None) -> list[int]:
    """How many windows each text gets of `count` (all by default): in proportion to the windows
    that it has, at least two. InputError for a count too small for that."""
    total = sum(available)
    if count is None or count >= total:
        return list(available)
    least = LEAST_WINDOWS * len(available)
    if count < least:
        raise InputError(
            f"--windows {count} is too few for {len(available)} texts", f"give at least {least}"
        )
    counts = [LEAST_WINDOWS] * len(available)
    while sum(counts) < count:
        lacking = [count * have / total - got for have, got in zip(available, counts, strict=True)]
        counts[lacking.index(max(lacking))] += 1
    return counts


def tile_windows(corpus: Corpus, tokenizer: "PreTrainedTokenizerBase", length: int) -> "Tensor":
    """Every whole window [n, length] of the corpus's tokens. InputError for fewer than two."""
    import torch

    tokens = tokenizer(corpus.text, verbose=False)["input_ids"]
    whole = len(tokens) // length
    if whole < LEAST_WINDOWS:
        raise InputError(
            f"{corpus.spec} has {len(tokens)} tokens, too few for two windows of {length}",
            "give a longer text or shorter windows",
        )
    return torch.tensor(tokens[: whole * length]).view(whole, length)


def pick_windows(windows: "Tensor", count: int | None) -> "Tensor":
    """`count` of the windows, spread evenly; all by default."""
    import torch

    if count is None or count >= len(windows):
        return windows
    return windows[torch.linspace(0, len(windows) - 1, count).round().long()]
