"""The prompts that are explained: read from a file, and cut into tokens."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from awqscope.diagnose.inputs.textfiles import decode_text
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.untrusted import parse_json
from awqscope.mixedprec.models.source import SourceModel

LONGEST_QUOTE = 40


def read_prompts(path: Path) -> list[str]:
    """Prompts of a file: the lines of a .txt that hold more than blanks, or the "prompt" of each
    line of a .jsonl. InputError where there is none."""
    if path.suffix not in (".txt", ".jsonl"):
        raise InputError(f"{path} is neither .txt nor .jsonl", "give a prompt a line")
    try:
        lines = decode_text(path, path.read_bytes()).split("\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read", error.strerror or "check the path") from error
    numbered = [(n, line) for n, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise InputError(f"{path} holds no prompt", "give a prompt a line")
    if path.suffix == ".txt":
        return [line for _, line in numbered]
    return [_read_line(path, number, line) for number, line in numbered]


def _read_line(path: Path, number: int, line: str) -> str:
    """The prompt of one line of a .jsonl."""
    remedy = 'write it as {"prompt": "…"}'
    try:
        entry: Any = parse_json(line)
    except ValueError as error:
        raise InputError(f"line {number} of {path} is no JSON", remedy) from error
    if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
        raise InputError(f'line {number} of {path} has no text "prompt"', remedy)
    return entry["prompt"]


def encode_prompts(
    prompts: list[str], tokenizer: PreTrainedTokenizerBase, model: SourceModel, tokens: int
) -> list[list[int]]:
    """Token ids of each prompt, as the tokenizer gives them, without a chat template. InputError
    for one that is empty, or leaves no room for `tokens` more in the model's positions."""
    limit = getattr(model.config, "max_position_embeddings", None)
    found = []
    for prompt in prompts:
        if not prompt.strip():
            raise InputError("a prompt is empty", "give some text")
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise InputError("a prompt is no Unicode text", "give it as UTF-8") from error
        ids = tokenizer(prompt, verbose=False)["input_ids"]
        if limit is not None and len(ids) + tokens > limit:
            raise InputError(
                f"the {len(ids)} tokens of the prompt {_quote(prompt)} and --tokens {tokens} are "
                f"more than the model's {limit} positions",
                "shorten it, or ask for fewer --tokens",
            )
        if max(ids, default=model.config.vocab_size) >= model.config.vocab_size:
            raise InputError(
                f"the prompt {_quote(prompt)} has tokens that the model does not know",
                "use the tokenizer that came with the model",
            )
        found.append(list(ids))
    return found


def _quote(prompt: str) -> str:
    """A prompt's beginning."""
    text = " ".join(prompt.split())
    return repr(text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + "…")
