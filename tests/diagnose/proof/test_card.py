"""The model card: front matter that other parsers read, numbers, what it keeps and replaces."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from awqscope.diagnose.proof.card import (
    BEGIN,
    END,
    CardSubject,
    card_metadata,
    name_text,
    run_command,
    split_card,
    write_card,
)
from awqscope.mixedprec.checkpoints.destinations import Kind
from awqscope.mixedprec.recipes.recipe import Recipe, RecipeUnit
from awqscope.mixedprec.recipes.widths import list_changed, list_widths
from awqscope.mixedprec.words import write_ranges
from tests.help.runs import SAMPLE, parse_run, read_sample

SOURCE = """---
license: apache-2.0
language: [en, de]
tags:
- code
base_model: org/base
base_model_relation: finetune
model-index:
- name: theirs
---
# Theirs

Made with care.
"""


def make_recipe(**bits: int) -> Recipe:
    """Blocks 0 to 3 with qkv and o, at 4 bits but for `bits` (`b2_o` is 2.o)."""
    units = []
    for block in range(4):
        for kind in ("qkv", "o"):
            width = bits.get(f"b{block}_{kind}", 4)
            units.append(RecipeUnit(f"{block}.{kind}", (f"layers.{block}.{kind}",), width))
    return Recipe("org/model", "flagged", tuple(units), {})


def read_json(name: str) -> Any:
    return json.loads((SAMPLE / name).read_text(encoding="utf-8"))


@pytest.fixture
def subject() -> CardSubject:
    return CardSubject(
        record=parse_run(read_sample()),
        recipe=make_recipe(b1_qkv=8, b2_qkv=8, b3_o=16),
        proof=read_json("proof.json"),
        bytes=5_064_320,
        base_model="org/model",
    )


def table_rows(card: str, first: str) -> dict[str, list[str]]:
    """The rows of the Markdown table whose head begins with `first`: name -> the other cells."""
    lines = card.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {first}"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:]]
    end = next(n for n, line in enumerate(lines[start:]) if not line.startswith("|"))
    return {row[0]: row[1:] for row in rows[:end]}


def test_other_parsers_read_the_front_matter(subject: CardSubject) -> None:
    card = ModelCard(write_card(subject, SOURCE))
    data = card.data.to_dict()
    assert (data["base_model"], data["base_model_relation"]) == ("org/model", "quantized")
    assert (data["license"], data["language"]) == ("apache-2.0", ["en", "de"])
    assert data["library_name"] == "transformers"
    assert data["tags"][0] == "code"
    assert {"awq", "compressed-tensors", "4-bit", "8-bit"} <= set(data["tags"])
    assert "16-bit" not in data["tags"]
    assert "model-index" not in data
    assert card.text.strip().endswith("Made with care.")


def test_nothing_is_invented_for_a_directory(subject: CardSubject) -> None:
    metadata = yaml.safe_load(write_card(replace(subject, base_model=None), "").split("---")[1])
    assert set(metadata) == {"library_name", "tags"}
    kept = card_metadata(replace(subject, base_model=None), split_card(SOURCE)[0])
    assert kept["base_model"] == "org/base"
    assert "base_model_relation" not in kept


def test_rewriting_replaces_the_section_and_keeps_the_rest(subject: CardSubject) -> None:
    first = write_card(subject, SOURCE)
    assert write_card(subject, first) == first
    edited = first.replace(BEGIN, f"Mine, before.\n\n{BEGIN}")
    again = write_card(replace(subject, bytes=7_000_000), edited)
    assert again.count(BEGIN) == again.count(END) == 1
    assert "7.00 MB" in again and "5.06 MB" not in again
    assert again.index("Mine, before.") < again.index(BEGIN)
    assert again.index(END) < again.index("Made with care.")


def test_who_loads_it_is_a_table(subject: CardSubject) -> None:
    assert "Where it goes" not in write_card(subject, "")
    with_zeros = Kind("compressed-tensors", zero_points=True, several=True)
    card = write_card(replace(subject, kind=with_zeros), "")
    lines = [line for line in card.splitlines() if line.startswith("| transformers")]
    assert [line.split(" | ")[1:3] for line in lines] == [
        ["`compressed-tensors >=0.15,<0.18`", "loads"],
        ["`compressed-tensors >=0.18`", "refuses"],
        ["`compressed-tensors <0.15`", "refuses"],
    ]
    remedy = 'pip install "compressed-tensors~=0.17.1" psutil, or run with --symmetric'
    assert remedy in lines[1]
    rows = table_rows(card, "reader")
    assert rows["MLX"][1] == "refuses" and "awqscope dequantize" in rows["MLX"][2]


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("# No front matter\n", "# No front matter\n"),
        ("---\n: [broken\n---\nBody\n", "Body\n"),
        ("---\n- a list\n---\nBody\n", "Body\n"),
        ("---\nnever ended\n", "---\nnever ended\n"),
        ("Text\n\n---\n\nmore\n", "Text\n\n---\n\nmore\n"),
    ],
)
def test_odd_front_matter_counts_as_none(text: str, body: str) -> None:
    assert split_card(text) == ({}, body)


def test_line_ends_of_other_systems() -> None:
    assert split_card("\ufeff---\r\nlicense: mit\r\n---\r\nBody\r\n") == (
        {"license": "mit"},
        "Body\n",
    )


def test_the_measured_numbers(subject: CardSubject) -> None:
    card = write_card(subject, "")
    rows = table_rows(card, " | 16-bit")
    assert rows["perplexity"] == ["63.827", "72.213", "64.315"]
    assert rows["ΔPPL [95%]"][1:] == ["+8.386 [+6.919, +9.887]", "+0.488 [+0.236, +0.758]"]
    assert rows["KL to 16-bit, mean, nats a token [95%]"][2] == "0.01179 [0.01125, 0.01233]"
    assert rows["weights"] == ["13.12 MB", "4.97 MB", "5.06 MB"]
    assert rows["lost KL given back [95%]"][2] == "94.9% [94.7%, 95.2%]"
    assert subject.record.ppl_definition.sentence in card
    assert "Proved from disk: transformers 5.23.0" in card


def test_widths_by_unit(subject: CardSubject) -> None:
    rows = table_rows(write_card(subject, ""), "unit")
    assert rows["unit"] == ["4 bits", "8 bits", "16 bits"]
    assert rows["`qkv`"] == ["0, 3", "1–2", "–"]
    assert rows["`o`"] == ["0–2", "–", "3"]
    assert list_changed(subject.recipe, 4) == "1.qkv and 2.qkv at 8, 3.o at 16"
    assert list_changed(make_recipe(), 4) == ""
    assert list_widths(make_recipe())[0] == {"unit": "qkv", "4": "0–3"}


@pytest.mark.parametrize(
    ("numbers", "written"),
    [([], ""), ([3], "3"), ([2, 1, 0], "0–2"), ([0, 2, 3, 7], "0, 2–3, 7")],
)
def test_ranges(numbers: list[int], written: str) -> None:
    assert write_ranges(numbers) == written


def test_a_checkpoint_that_was_not_proved_or_failed(subject: CardSubject) -> None:
    bare = write_card(replace(subject, proof=None, requantized=True), "")
    assert "was not measured" in bare and "perplexity |" not in bare
    assert "awqscope requantize RUN" in bare and "--prove\n" not in bare
    proof = read_json("proof.json")
    failed = proof | {"passed": False, "checks": proof["checks"] | {"unexpected": ["x"]}}
    assert "**The proof failed**" in write_card(replace(subject, proof=failed), "")


def test_a_run_that_measured_nothing_itself(subject: CardSubject) -> None:
    early = subject.record.changed(headline=None)
    proof = read_json("proof.json")
    proof["measured"] |= {"recovered": None, "recovered_interval": None}
    card = write_card(replace(subject, record=early, proof=proof), "")
    assert table_rows(card, " | this checkpoint")["perplexity"] == ["64.315"]
    assert "given back" not in card


def test_autoawqs_format(subject: CardSubject) -> None:
    uniform = replace(
        subject, recipe=make_recipe(), fmt="awq", proof=None, requantized=True, base_model=None
    )
    card = ModelCard(write_card(uniform, ""))
    assert card.data.tags is not None
    assert "compressed-tensors" not in card.data.tags
    assert "--format awq" in card.text and "gptqmodel" in card.text


def test_directories_stay_private_and_names_stay_text(subject: CardSubject) -> None:
    spec = subject.record.spec.change(
        calib="/home/me/secret/calib.txt",
        windows=7,
        symmetric=True,
        keep_fp16=("1.o",),
    )
    hostile = f"/home/me/secret/a`|{END}<script>x"
    definition = subject.record.ppl_definition.changed(text="/home/me/secret/v|alid`.txt")
    record = subject.record.changed(model=hostile, spec=spec, ppl_definition=definition)
    card = write_card(replace(subject, record=record, base_model=None), "")
    assert "secret" not in card
    assert "<script>" not in card
    assert card.count(END) == 1
    assert write_card(replace(subject, record=record, base_model=None), card) == card
    command = run_command(replace(subject, record=record))
    assert command.startswith("awqscope run org/model --calib calib.txt ")
    assert " --symmetric --search exact --seq-len 256 --windows 7 " in command
    # What auto comes to is another thing on another device.
    assert command.endswith(" --keep-fp16 1.o --precision float32")
    assert "--bits" not in command
    texts = record.changed(spec=spec.change(valid=("/home/me/a.txt", "wikitext2")))
    assert " --valid a.txt --valid wikitext2 " in run_command(replace(subject, record=texts))
    assert name_text("hub:org/name:test:text") == "hub:org/name:test:text"
    assert name_text("wikitext2:test") == "wikitext2:test"


def test_the_sample_can_be_read_back(subject: CardSubject, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(write_card(subject, SOURCE), encoding="utf-8")
    assert ModelCard.load(path).data.license == "apache-2.0"


@pytest.mark.parametrize(
    "front",
    [
        "a: &a [x, x]\nb: &b [*a, *a]\ntags: [*b, *b]",
        "a: &a {x: 1}\nb: {<<: *a}",
        "a: " + "[" * 5000,
        "released: 2024-13-45",
        "x: " + "y" * 200_000,
    ],
)
def test_front_matter_that_would_not_end_counts_as_none(front: str) -> None:
    assert split_card(f"---\n{front}\n---\nbody") == ({}, "body")
