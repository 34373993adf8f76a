"""Planted causes are named, each as what it is, and none where nothing was planted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer
from typer.testing import CliRunner

from awqscope import InputError
from awqscope.app.cli import app
from awqscope.diagnose.studies.causes.answer import Causes, Finding, read_causes
from awqscope.diagnose.studies.causes.find import MEASURING, find_causes
from awqscope.diagnose.trials.finished import OpenedRun
from tests.help.planted import (
    Sizes,
    change_model,
    mix_head,
    raise_channel,
    tighten_clip,
    write_studied_run,
)

BLOCK = 1
SIZES = Sizes(size=32, served=2)
V, O_LINEAR = "self_attn.v_proj", "self_attn.o_proj"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def model(make_model: Callable[..., Path]) -> Path:
    return make_model("llama")


@pytest.fixture(scope="module")
def clean(model: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> OpenedRun:
    return write_studied_run(tmp_path_factory.mktemp("clean") / "run", model, text_file, text_file)


def plant(
    model: Path, text: Path, folder: Path, change: Callable[[Tensors], object], **asked: object
) -> OpenedRun:
    changed = change_model(model, folder / "model", change)
    return write_studied_run(folder / "run", changed, text, text, **asked)


def named(causes: Causes, cause: str) -> Finding:
    found = [finding for finding in causes.findings if finding.cause == cause]
    assert len(found) == 1, causes.findings
    return found[0]


@pytest.mark.parametrize("block", range(2))
def test_nothing_is_named_in_a_clean_block(clean: OpenedRun, block: int) -> None:
    causes = find_causes(clean, block)
    assert causes.kl[0] > 0 and causes.findings == []


def test_an_ill_conditioned_head_is_named(model: Path, text_file: Path, tmp_path: Path) -> None:
    opened = plant(model, text_file, tmp_path, lambda t: mix_head(t, BLOCK, 1, 1e3, SIZES))
    causes = find_causes(opened, BLOCK)
    first = causes.findings[0]
    assert (first.cause, list(first.heads), first.step) == ("conditioning", [1], "rounding")
    assert (first.role, first.linear) in (("v", V), ("o", O_LINEAR))
    assert {finding.cause for finding in causes.findings} == {"conditioning"}
    assert first.numbers["condition"] > 10 * first.numbers["usual"]
    assert find_causes(opened, 0).findings == []


def test_an_outlier_channel_is_named(model: Path, text_file: Path, tmp_path: Path) -> None:
    opened = plant(model, text_file, tmp_path, lambda t: raise_channel(t, BLOCK, 5, 100, SIZES))
    finding = named(find_causes(opened, BLOCK), "channel")
    assert (finding.linear, finding.channel) == (O_LINEAR, 5)


def test_a_clip_that_hurts_is_named(model: Path, text_file: Path, tmp_path: Path) -> None:
    opened = write_studied_run(tmp_path / "run", model, text_file, text_file)
    tighten_clip(opened, BLOCK, V, 0.5)
    causes = find_causes(opened, BLOCK)
    finding = named(causes, "clip")
    assert finding.linear == V and causes.damage.clip[0] > 0
    assert find_causes(opened, 0).findings == []


@pytest.fixture(scope="module")
def domains(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A model in which digits, and nothing else, raise one channel; a text without them, and one
    that is full of them."""
    folder = tmp_path_factory.mktemp("domains")
    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    digits = [token for token, text in enumerate(texts) if any(c.isdigit() for c in text)]

    def change(tensors: Tensors) -> None:
        embedding = tensors["model.embed_tokens.weight"]
        embedding[:, 7] *= 0.01
        embedding[digits, 7] = 40 * embedding.std()
        # AWQ scales by activations where they are uneven.
        tensors["model.layers.0.input_layernorm.weight"][16:24] *= 8

    words, numbers = folder / "words.txt", folder / "numbers.txt"
    lines = [
        f"the {a} {b} of the {c} {d}"
        for a in ("slow", "broad", "careful", "silent", "early", "plain")
        for b in ("reading", "measure", "search", "balance", "proof", "record")
        for c in ("block", "stream", "window", "token", "recipe", "server")
        for d in ("is read", "is kept", "is not")
    ]
    words.write_text("\n".join(lines), encoding="utf-8")
    numbers.write_text(" ".join(str(n * n % 997) for n in range(2000)), encoding="utf-8")
    return change_model(model, folder / "model", change), words, numbers


def test_a_calibration_text_that_missed_a_domain_is_named(
    domains: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    changed, words, numbers = domains
    opened = write_studied_run(tmp_path / "run", changed, words, numbers)
    finding = named(find_causes(opened, 0), "calibration")
    assert finding.channel == 7 and finding.numbers["larger"] > 5, finding
    assert finding.numbers["plain"] < finding.numbers["served"]


def test_a_calibration_text_that_has_the_domain_is_not_blamed(
    domains: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    changed, _, numbers = domains
    opened = write_studied_run(tmp_path / "run", changed, numbers, numbers)
    assert "calibration" not in [f.cause for f in find_causes(opened, 0).findings]


def test_the_text_that_was_missed_is_named(
    domains: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    changed, words, numbers = domains
    opened = write_studied_run(tmp_path / "run", changed, words, words, more=(numbers,), windows=16)
    causes = find_causes(opened, 0)
    assert len(causes.texts) == 2 and all(len(linear.by_text) == 2 for linear in causes.linears)
    finding = named(causes, "calibration")
    assert finding.text in (None, str(numbers))


def test_a_stopped_study_goes_on_where_it_was(model: Path, text_file: Path, tmp_path: Path) -> None:
    opened = write_studied_run(tmp_path / "run", model, text_file, text_file)
    expected = find_causes(opened, BLOCK, 8)
    (opened.run.path / "studies" / f"why-{BLOCK}.json").unlink()
    seen: list[tuple[str, int]] = []

    def stop(stage: str, done: int, _total: int) -> None:
        seen.append((stage, done))
        if stage == MEASURING and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_causes(opened, BLOCK, 8, stop)
    parts = opened.run.path / "studies" / f"why-{BLOCK}"
    assert {path.name for path in parts.iterdir()} == {"asked.json", "look.json", "damage-0.json"}
    seen.clear()
    found = find_causes(opened, BLOCK, 8, lambda *event: seen.append(event[:2]))
    assert found == expected and not parts.exists()
    assert "looking inside" not in {stage for stage, _ in seen}
    seen.clear()
    assert find_causes(opened, BLOCK, 8, lambda *event: seen.append(event[:2])) == expected
    assert seen == [] and read_causes(opened.run, BLOCK, 6) is None


def call(*arguments: object) -> object:
    return CliRunner().invoke(app, ["why", *map(str, arguments)])


def test_the_command_prints_it_in_words_and_as_json(clean: OpenedRun) -> None:
    causes = find_causes(clean, BLOCK)
    printed = call(clean.run.path, BLOCK, "--json")
    assert Causes.model_validate(json.loads(printed.stdout)) == causes
    said = call(clean.run.path, BLOCK).stdout
    assert "No cause stands out" in said and "Rounding alone" in said
    for linear in causes.linears:
        assert linear.linear in said


@pytest.mark.parametrize(
    ("block", "options", "said"),
    [
        (2, (), "the model has no block 2: give one from 0 to 1"),
        (1, ("--windows", "1"), "--windows 1 is too few: give at least 2"),
        (1, ("--windows", "x"), "--windows"),
        (1, ("--windows", "5", "--model", "/nowhere"), "/nowhere"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    clean: OpenedRun, block: int, options: tuple[str, ...], said: str
) -> None:
    result = call(clean.run.path, block, *options)
    assert result.exit_code == 2 and said in result.stderr
    assert len(result.stderr.strip().splitlines()[-1:]) == 1 and "Traceback" not in result.stderr


def test_texts_that_changed_are_refused(model: Path, text_file: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(text_file.read_text(encoding="utf-8"), encoding="utf-8")
    opened = write_studied_run(tmp_path / "run", model, text, text)
    text.write_text("another " * 2000, encoding="utf-8")
    with pytest.raises(InputError, match="has changed since"):
        find_causes(opened, BLOCK)


def test_a_block_at_16_bits_is_refused(model: Path, text_file: Path, tmp_path: Path) -> None:
    kept = tuple(f"0.{unit}" for unit in ("qkv", "o", "gate_up", "down"))
    opened = write_studied_run(
        tmp_path / "run", model, text_file, text_file, keep_fp16=(*kept, "1.o")
    )
    with pytest.raises(InputError, match="block 0 is kept at 16 bits"):
        find_causes(opened, 0)
    causes = find_causes(opened, 1)
    assert causes.kept == [O_LINEAR]
    assert O_LINEAR not in [linear.linear for linear in causes.linears]
