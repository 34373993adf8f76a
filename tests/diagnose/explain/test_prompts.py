"""Prompts from files, and what cannot be one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from awqscope.diagnose.explain.prompts import encode_prompts, read_prompts
from awqscope.diagnose.inputs.corpora import load_tokenizer
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.opening import open_model


def test_prompts_of_a_file(tmp_path: Path) -> None:
    text = tmp_path / "p.txt"
    text.write_bytes("  one \n\n \t\ntwo\u2028still two\r\nthree".encode())
    assert read_prompts(text) == ["  one ", "two\u2028still two", "three"]
    text.write_bytes(b"\xef\xbb\xbfone\r\n")
    assert read_prompts(text) == ["one"], "a mark is no part of a prompt"
    lines = tmp_path / "p.jsonl"
    lines.write_text('{"prompt": "one\\ntwo", "id": 1}\n\n{"prompt": "--json"}\n')
    assert read_prompts(lines) == ["one\ntwo", "--json"]


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("p.txt", b"\n  \n", "holds no prompt"),
        ("p.jsonl", b"", "holds no prompt"),
        ("p.txt", b"\xff\xfe", "is not UTF-8"),
        ("p.csv", b"a", "neither .txt nor .jsonl"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": ', "line 2 of .* is no JSON"),
        ("p.jsonl", b'{"text": "a"}', 'line 1 of .* has no text "prompt"'),
        ("p.jsonl", b'["a"]', 'line 1 of .* has no text "prompt"'),
        ("p.jsonl", b'{"prompt": 3}', 'line 1 of .* has no text "prompt"'),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, wanted: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=wanted):
        read_prompts(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_prompts(tmp_path / "none.txt")


def test_tokens_of_prompts(make_model: Callable[..., Path]) -> None:
    path = make_model("llama")
    model, tokenizer = open_model(str(path)), load_tokenizer(path)
    prompts = ["the slow reading", "7"]
    found = encode_prompts(prompts, tokenizer, model, 4)
    assert [tokenizer.decode(ids) for ids in found] == prompts
    longest = "word " * 300
    count = len(tokenizer(longest)["input_ids"])
    with pytest.raises(InputError, match=f"the {count} tokens of .* and --tokens 4 .* 128 posi"):
        encode_prompts([longest], tokenizer, model, 4)
    exactly = tokenizer.decode(tokenizer(longest)["input_ids"][:124])
    assert len(encode_prompts([exactly], tokenizer, model, 4)[0]) == 124
    for bad in ("", " \n"):
        with pytest.raises(InputError, match="empty"):
            encode_prompts(["fine", bad], tokenizer, model, 4)
    with pytest.raises(InputError, match="no Unicode"):
        encode_prompts(["\ud800"], tokenizer, model, 4)
