"""A look at weights says what numpy finds in the raw files, and the run's checkpoint and its
searches tell the same."""

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from awqscope import InputError
from awqscope.app.cli import app
from awqscope.diagnose.studies.weights import look
from awqscope.diagnose.studies.weights.answer import BlockWeights, LinearWeights
from awqscope.diagnose.studies.weights.look import choose_channels, look_at_weights
from awqscope.diagnose.studies.weights.searched import read_searched
from awqscope.diagnose.studies.weights.sources import CHECKPOINT, SEARCHES, open_block
from awqscope.diagnose.trials.finished import OpenedRun, open_run
from awqscope.mixedprec.awq.arithmetic import Quantized
from awqscope.mixedprec.awq.choices import load_search, search_path
from awqscope.mixedprec.checkpoints.writer import write_checkpoint
from awqscope.mixedprec.recipes.recipe import make_recipe, save_recipe
from tests.help.planted import write_studied_run

Arrays = dict[str, np.ndarray]
UP, DOWN = "mlp.up_proj", "mlp.down_proj"
SITES = {
    "self_attn.q_proj": "qkv",
    "self_attn.k_proj": "qkv",
    "self_attn.v_proj": "qkv",
    "self_attn.o_proj": "o",
    "mlp.gate_proj": "gate_up",
    UP: "gate_up",
    DOWN: "down",
}


@pytest.fixture(scope="module")
def opened(
    make_model: Callable[..., Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> OpenedRun:
    """A run with a recipe of 4, 8 and 16 bits, its checkpoint, and sizes of activations."""
    path = tmp_path_factory.mktemp("weights") / "run"
    run = write_studied_run(path, make_model("llama"), text_file, text_file, windows=4)
    model, spec = run.model, run.spec
    changed = {"1.down": 8, "1.o": 16}
    recipe = make_recipe("tiny", model.family, model.blocks, 4, changed=changed)
    save_recipe(path / "recipe.json", recipe)
    write_checkpoint(run.run.checkpoint, model, recipe, run.run.searches, spec.schemes)
    rng = np.random.default_rng(5)
    block = model.block_shell(0)
    sizes = {
        f"channel_max.{number}.{site}.reference": rng.lognormal(
            size=block.get_submodule(name).in_features
        ).astype(np.float32)
        for number in range(model.blocks)
        for name, site in SITES.items()
    }
    save_file(sizes, path / "activations.safetensors")
    return open_run(run.run, None)


@pytest.fixture(scope="module")
def answers(opened: OpenedRun) -> list[BlockWeights]:
    return [look_at_weights(opened, block) for block in range(2)]


@pytest.fixture(scope="module")
def raw(opened: OpenedRun) -> tuple[Arrays, Arrays]:
    """The tensors of the model and of its checkpoint."""
    folders = (opened.model.path, opened.run.checkpoint)
    model, checkpoint = (load_file(folder / "model.safetensors") for folder in folders)
    return model, checkpoint


def read_search(opened: OpenedRun, block: int, bits: int) -> tuple[Arrays, dict[str, np.ndarray]]:
    """The arrays of a search, and the scales by linear."""
    path = opened.run.searches / f"block-{block:04d}.w{bits}.safetensors"
    with safe_open(path, framework="np") as file:
        groups = json.loads(file.metadata()["groups"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    scales = {
        linear: arrays[f"scale.{number}"]
        for number, group in enumerate(groups)
        for linear in group["linears"]
    }
    return arrays, scales


def unpack(words: np.ndarray, bits: int) -> np.ndarray:
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    codes = (words.view(np.uint32)[..., None] >> shifts) & (2**bits - 1)
    return codes.reshape(len(words), -1)


def decode(checkpoint: Arrays, name: str, bits: int, columns: int) -> tuple[np.ndarray, ...]:
    """Codes [N, K], zero points and scales [N, G]."""
    codes = unpack(checkpoint[f"{name}.weight_packed"], bits)[:, :columns]
    scales = checkpoint[f"{name}.weight_scale"].astype(np.float64)
    packed = checkpoint.get(f"{name}.weight_zero_point")
    if packed is None:
        zeros = np.full(scales.shape, 2 ** (bits - 1))
    else:
        zeros = unpack(np.ascontiguousarray(packed.T), bits)[:, : len(codes)].T
    return codes, zeros, scales


class Oracle:
    """One linear by loops of numpy over the raw files."""

    def __init__(self, opened: OpenedRun, raw: tuple[Arrays, Arrays], block: int, linear: str):
        model, checkpoint = raw
        prefix = f"model.layers.{block}"
        name = f"{prefix}.{linear}"
        self.bits = 8 if (block, linear) == (1, DOWN) else 4
        self.reference = model[f"{name}.weight"].astype(np.float64)
        rows, columns = self.reference.shape
        self.codes, self.zeros, scales = decode(checkpoint, name, self.bits, columns)
        self.group = columns // scales.shape[1]
        inputs, outputs = np.ones(columns), np.ones(rows)
        arrays, found = read_search(opened, block, self.bits)
        down = read_search(opened, block, 8 if block == 1 else 4)[1][DOWN]
        stretch = np.ones(rows)
        norms = {"qkv": "input_layernorm", "gate_up": "post_attention_layernorm"}
        if SITES[linear] in norms:
            norm = f"{prefix}.{norms[SITES[linear]]}.weight"
            ratio = model[norm].astype(np.float32) / checkpoint[norm].astype(np.float32)
            inputs = ratio.astype(np.float64)
        elif linear in found:
            inputs = (down if linear == DOWN else found[linear]).astype(np.float64)
        if linear == UP:
            outputs = down.astype(np.float64)
            stretch = found[DOWN].astype(np.float64) / outputs
        spread = [np.repeat(each, self.group, axis=1) for each in (self.zeros, scales)]
        served = (self.codes - spread[0].astype(np.float64)) * spread[1]
        self.stored = served * outputs[:, None] / inputs
        self.scaled = self.reference * inputs / outputs[:, None]
        clip = arrays.get(f"clip.{linear}")
        self.limit = None if clip is None else clip.astype(np.float64) * stretch[:, None]

    def by_group(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(len(values), -1, self.group)


def find(answer: BlockWeights, linear: str) -> LinearWeights:
    [found] = [one for one in answer.linears if one.linear == linear]
    return found


CASES = [
    (block, name) for block in range(2) for name in SITES if (block, name[10:]) != (1, "o_proj")
]


@pytest.mark.parametrize(("block", "linear"), CASES)
def test_it_says_what_numpy_finds_in_the_files(
    opened: OpenedRun,
    answers: list[BlockWeights],
    raw: tuple[Arrays, Arrays],
    block: int,
    linear: str,
) -> None:
    told, truth = find(answers[block], linear), Oracle(opened, raw, block, linear)
    assert answers[block].made_of == CHECKPOINT
    assert (told.bits, [told.rows, told.columns]) == (truth.bits, list(truth.reference.shape))
    assert told.codes == np.bincount(truth.codes.ravel(), minlength=2**truth.bits).tolist()
    if told.symmetric:
        assert told.zeros == [] and truth.bits == 8
    else:
        assert told.zeros == np.bincount(truth.zeros.ravel(), minlength=2**truth.bits).tolist()
    assert told.unused == sum(count == 0 for count in told.codes)
    ends = (truth.codes == 0) | (truth.codes == 2**truth.bits - 1)
    assert told.saturated == pytest.approx(ends.mean(), rel=1e-12)
    groups = truth.by_group(truth.codes).reshape(-1, truth.group)
    distinct = [len(set(group.tolist())) for group in groups]
    assert told.used_in_group == pytest.approx(np.mean(distinct), rel=1e-12)
    assert told.range == (truth.reference.min(), truth.reference.max())
    difference = truth.stored - truth.reference
    error = np.linalg.norm(difference) / np.linalg.norm(truth.reference)
    assert told.relative_error == pytest.approx(error, rel=1e-5)
    assert told.sqnr == pytest.approx(-20 * np.log10(error), abs=1e-3)
    weights = [channel.weight for channel in told.channels]
    np.testing.assert_allclose(weights, np.abs(truth.reference).mean(0), rtol=1e-5)


@pytest.mark.parametrize(("block", "linear"), CASES)
def test_the_clip_is_what_numpy_cuts(
    opened: OpenedRun,
    answers: list[BlockWeights],
    raw: tuple[Arrays, Arrays],
    block: int,
    linear: str,
) -> None:
    told, truth = find(answers[block], linear), Oracle(opened, raw, block, linear)
    if truth.limit is None:
        assert told.clipping is None and linear in ("self_attn.q_proj", "self_attn.k_proj")
        return
    assert told.clipping is not None
    sizes = np.abs(truth.by_group(truth.scaled))
    cut = np.maximum(0, 1 - truth.limit / sizes.max(-1))
    # autoawq's levels: none, then 5%, 10% … 45% of a group's range.
    steps = np.bincount(np.rint(cut / 0.05).astype(int).ravel())
    assert told.clipping.steps == steps.tolist() and steps.sum() == told.clipping.groups
    assert told.clipping.clipped == steps[1:].sum()
    assert (told.clipping.clipped > 0) is (truth.bits == 4)
    share = (sizes > truth.limit[..., None] * 1.01).mean()
    assert told.clipping.weights == pytest.approx(share, rel=1e-9)


@pytest.mark.parametrize(("block", "linear"), [(0, "self_attn.v_proj"), (1, DOWN), (1, UP)])
def test_the_worst_groups_are_the_worst(
    opened: OpenedRun,
    answers: list[BlockWeights],
    raw: tuple[Arrays, Arrays],
    block: int,
    linear: str,
) -> None:
    told, truth = find(answers[block], linear), Oracle(opened, raw, block, linear)
    difference = truth.stored - truth.reference
    sizes = np.linalg.norm(truth.by_group(truth.reference), axis=-1)
    errors = np.linalg.norm(truth.by_group(difference), axis=-1)
    damage = errors / np.maximum(sizes, np.sqrt((sizes**2).mean()))
    largest = load_file(opened.run.path / "activations.safetensors")[
        f"channel_max.{block}.{SITES[linear]}.reference"
    ].astype(np.float64)
    reach = truth.by_group(np.abs(difference) * largest).sum(-1)
    worst = np.sort(damage.ravel())[::-1][:24]
    np.testing.assert_allclose([group.error for group in told.groups[:24]], worst, rtol=1e-4)
    farthest = set(zip(*np.unravel_index(np.argsort(-reach.ravel())[:8], reach.shape), strict=True))
    assert farthest <= {(group.row, group.group) for group in told.groups}
    for group in told.groups:
        here = slice(group.group * truth.group, (group.group + 1) * truth.group)
        assert list(group.channels) == list(range(here.start, here.stop))
        assert list(group.codes) == truth.codes[group.row, here].tolist()
        assert group.zero == truth.zeros[group.row, group.group]
        assert group.error == pytest.approx(damage[group.row, group.group], rel=1e-4)
        assert group.reach == pytest.approx(reach[group.row, group.group], rel=1e-4)
        np.testing.assert_allclose(group.reference, truth.reference[group.row, here], rtol=1e-5)
        np.testing.assert_allclose(group.stored, truth.stored[group.row, here], rtol=1e-4)


def test_heads_are_named_by_rows_and_columns(answers: list[BlockWeights]) -> None:
    answer = answers[0]
    assert answer.heads is not None and answer.kv_heads is not None
    served = answer.heads // answer.kv_heads
    roles = {f"self_attn.{role}_proj": role for role in "qkvo"}
    for linear, role in roles.items():
        told = find(answer, linear)
        size = (told.columns if role == "o" else told.rows) // (
            answer.kv_heads if role in "kv" else answer.heads
        )
        assert told.groups
        for group in told.groups:
            first, last = min(group.channels) // size, max(group.channels) // size
            heads = list(range(first, last + 1)) if role == "o" else [group.row // size]
            assert (group.role, list(group.heads)) == (role, heads)
            if role in "kv":
                owned = range(heads[0] * served, (heads[0] + 1) * served)
                assert list(group.serves) == list(owned)
    assert {group.role for group in find(answer, DOWN).groups} == {None}


def test_what_is_kept_has_no_codes(answers: list[BlockWeights]) -> None:
    told = find(answers[1], "self_attn.o_proj")
    assert (told.bits, told.codes, told.clipping, told.saturated) == (16, [], None, None)
    assert told.bits_per_weight == 16


def test_both_sources_agree_bit_for_bit(opened: OpenedRun, tmp_path: Path) -> None:
    alone = tmp_path / "run"
    shutil.copytree(opened.run.path, alone, ignore=shutil.ignore_patterns("checkpoint", "studies"))
    rebuilt = open_run(replace(opened.run, path=alone), None)
    for block in range(2):
        disk, made = open_block(opened, block), open_block(rebuilt, block)
        assert (disk.made_of, made.made_of) == (CHECKPOINT, SEARCHES)
        for ours, theirs in zip(disk.linears, made.linears, strict=True):
            assert sorted(map(repr, ours.tensors)) == sorted(map(repr, theirs.tensors))
            one, other = ours.stored(0, ours.rows), theirs.stored(0, ours.rows)
            if isinstance(one, Quantized):
                assert isinstance(other, Quantized) and one.scheme == other.scheme
                for part in ("codes", "scales", "zeros"):
                    assert torch.equal(getattr(one, part), getattr(other, part)), ours.linear
            else:
                assert isinstance(other, torch.Tensor) and torch.equal(one, other)
        told, again = look_at_weights(opened, block), look_at_weights(rebuilt, block)
        assert [one.changed(tensors=()) for one in told.linears] == [
            one.changed(tensors=()) for one in again.linears
        ]


def test_codes_are_those_that_compressed_tensors_unpacks(
    opened: OpenedRun, raw: tuple[Arrays, Arrays]
) -> None:
    for linear in open_block(opened, 1).linears:
        if linear.scheme is None:
            continue
        packed = torch.from_numpy(raw[1][f"model.layers.1.{linear.linear}.weight_packed"])
        size = torch.Size([linear.rows, linear.columns])
        theirs = unpack_from_int32(packed, linear.scheme.bits, size)
        stored = linear.stored(0, linear.rows)
        assert isinstance(stored, Quantized)
        assert torch.equal(theirs.int() + 2 ** (linear.scheme.bits - 1), stored.codes.int())


def test_parts_of_any_size_tell_the_same(
    opened: OpenedRun, answers: list[BlockWeights], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awqscope.diagnose.studies.weights.sources.ELEMENTS_AT_ONCE", 1)
    monkeypatch.setattr("awqscope.diagnose.studies.weights.sources.CUT", 80)
    monkeypatch.setattr("awqscope.diagnose.studies.weights.look.CUT", 80)
    source = open_block(opened, 1)
    assert {linear.step for linear in source.linears} == {80}
    assert sum(linear.rows > 80 for linear in source.linears) == 5
    for linear, told in zip(source.linears, answers[1].linears, strict=True):
        largest = look.read_largest(opened.run, 1)[linear.kind.name]
        heads = look.find_heads(
            opened.model.family, opened.model.config, opened.model.block_shell(1)
        )
        found = look.look_at_linear(linear, largest, heads).to_json()
        for key, value in told.to_json().items():
            if isinstance(value, float):
                assert found[key] == pytest.approx(value, rel=1e-9)
            else:
                assert found[key] == value, key


def test_it_is_kept_until_what_is_stored_changes(
    opened: OpenedRun, answers: list[BlockWeights], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_given: Any) -> None:
        raise AssertionError("it was looked at again")

    monkeypatch.setattr(look, "look_at_linear", refuse)
    assert look_at_weights(opened, 0) == answers[0]
    shutil.move(opened.run.checkpoint, opened.run.path / "elsewhere")
    try:
        with pytest.raises(AssertionError, match="again"):
            look_at_weights(opened, 0)
    finally:
        shutil.move(opened.run.path / "elsewhere", opened.run.checkpoint)


def test_bad_input_is_one_line(opened: OpenedRun, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no block 7"):
        look_at_weights(opened, 7)
    other = tmp_path / "run"
    shutil.copytree(opened.run.path, other)
    changed = {"0.down": 8}
    recipe = make_recipe("tiny", opened.model.family, opened.model.blocks, 4, changed=changed)
    save_recipe(other / "recipe.json", recipe)
    with pytest.raises(InputError, match="width of the run's recipe"):
        look_at_weights(open_run(replace(opened.run, path=other), None), 0)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["weights", *map(str, arguments)])


def test_the_command_prints_a_unit_in_words_and_as_json(
    opened: OpenedRun, answers: list[BlockWeights]
) -> None:
    whole = call(opened.run.path, 1, "--json")
    assert BlockWeights.model_validate(json.loads(whole.stdout)) == answers[1]
    printed = json.loads(call(opened.run.path, "1.qkv", "--linear", "v_proj", "--json").stdout)
    assert [one["linear"] for one in printed["linears"]] == ["self_attn.v_proj"]
    said = call(opened.run.path, "1.gate_up").stdout
    assert "mlp.gate_proj" in said and UP in said and DOWN not in said
    assert "The codes are those of the run's checkpoint on disk." in said
    assert "is rounded worst" in said and "codes       " in said


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["x.qkv"], "'x.qkv' is no unit: give a unit like 5.qkv, or a block like 5"),
        (["0.none"], "there is no unit 0.none: block 0 has 0.qkv, 0.o, 0.gate_up and 0.down"),
        (["0.o", "--linear", "q_proj"], "there is no linear 'q_proj' here: choose"),
        (["9.qkv"], "the model has no block 9: give one from 0 to 1"),
    ],
)
def test_a_wrong_unit_is_one_line(
    opened: OpenedRun, answers: list[BlockWeights], asked: list[str], said: str
) -> None:
    result = call(opened.run.path, *asked)
    assert (result.exit_code, result.stdout) == (2, "") and said in result.stderr


def test_an_answer_is_printed_without_the_model(
    opened: OpenedRun, answers: list[BlockWeights], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("awqscope.diagnose.trials.finished.open_run", None)
    assert json.loads(call(opened.run.path, 0, "--json").stdout) == answers[0].to_json()


def test_a_search_is_read_without_torch_as_with_it(opened: OpenedRun) -> None:
    search = load_search(search_path(opened.run.searches, 1, 4))
    found = read_searched(opened.run, 1, 4)
    assert read_searched(opened.run, 1, 7) == {}
    for linear, searched in found.items():
        choice, clip = search.choice_for(linear), search.clips.get(linear)
        for ours, theirs in ((searched.scales, choice and choice.scales), (searched.limits, clip)):
            assert (ours is None) is (theirs is None)
            if ours is not None and theirs is not None:
                np.testing.assert_array_equal(ours, theirs.numpy())
    assert set(found) == {*search.clips, *(n for one in search.scales for n in one.group.linears)}


def test_many_channels_are_told_by_the_largest_and_some_others() -> None:
    values = torch.rand(5000, generator=torch.Generator().manual_seed(2))
    chosen = choose_channels([values, values.flip(0)])
    assert len(chosen) == 1024 and chosen == sorted(set(chosen))
    top = set(values.argsort(descending=True)[:64].tolist())
    assert top <= set(chosen) and {4999 - channel for channel in top} <= set(chosen)
    assert max(b - a for a, b in itertools.pairwise(chosen)) < 12
    assert choose_channels([values[:1024]]) == list(range(1024))
