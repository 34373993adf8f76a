"""What is said of a prompt against models built whole, one by one, and every set of units tried."""

import json
import math
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import Tensor

from awqscope.app.words.explanation import guilty_blocks
from awqscope.diagnose.explain.explain import explain
from awqscope.diagnose.explain.explanation import Explanation, Explanations
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.sweep.swappable import read_swappable
from awqscope.diagnose.trials.finished import OpenedRun, open_run, promote
from awqscope.diagnose.trials.variants import block_mix
from tests.help.root import ROOT
from tests.help.searched import build_whole, write_searched_run

TOKENS = 10
PROMPTS = ["the slow reading", "Line 7: the", "careful proof of the window", "is not", "7"]
GIB = 2**30


@pytest.fixture(scope="module")
def opened(
    make_model: Callable[..., Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> OpenedRun:
    """A searched model of two blocks: eight units, 255 sets."""
    run = tmp_path_factory.mktemp("explain") / "run"
    changed = {"0.qkv": 8, "1.down": 8, "1.o": 8}
    return open_run(write_searched_run(run, make_model("llama"), text_file, changed=changed), None)


@pytest.fixture(scope="module")
def found(opened: OpenedRun) -> Explanations:
    return explain(opened, PROMPTS, TOKENS, GIB)


def apart(found: Explanations) -> list[Explanation]:
    chosen = [entry for entry in found.prompts if entry.parting and not entry.parting.tied]
    assert len(chosen) >= 2, "the tiny model must part on some prompts"
    return chosen


@torch.no_grad()
def read(opened: OpenedRun, bits: Mapping[str, int], entry: Explanation) -> Tensor:
    """Logits [tokens, vocabulary] of a whole model in the places of all tokens but the first."""
    text = [piece.token for piece in entry.pieces]
    whole = build_whole(opened.model, opened.run.searches, bits)
    return whole(torch.tensor([text])).logits[0, :-1]


def after(entry: Explanation, logits: Tensor) -> Tensor:
    """Those of the continuation alone."""
    return logits[entry.prompt_tokens - 1 :]


def repairs(entry: Explanation, logits: Tensor) -> bool:
    """Whether all up to the parting is the reference's."""
    assert entry.parting is not None
    count = entry.parting.position + 1
    return after(entry, logits).argmax(-1)[:count].tolist() == list(entry.reference.tokens[:count])


def test_the_contest_is_told_as_it_is(opened: OpenedRun, found: Explanations) -> None:
    for entry in apart(found):
        rivals = entry.parting
        assert rivals is not None
        place = rivals.position
        assert entry.common == place
        assert entry.reference.tokens[:place] == entry.uniform.tokens[:place]
        assert entry.reference.tokens[place] == rivals.reference.token
        assert entry.uniform.tokens[place] == rivals.other.token
        for name in ("reference", "uniform"):
            logits = after(entry, read(opened, opened.models[name], entry))[place]
            odds = logits.softmax(-1)
            for rival in (rivals.reference, rivals.other):
                told = getattr(rival, f"probability_{name}")
                assert told == pytest.approx(float(odds[rival.token]), rel=1e-3, abs=1e-6)
            other = logits.clone()
            other[rivals.reference.token] = -math.inf
            margin = float(logits[rivals.reference.token] - other.max())
            assert getattr(rivals, f"margin_{name}") == pytest.approx(margin, abs=1e-3)


def test_kl_by_token_equals_the_naive_one(opened: OpenedRun, found: Explanations) -> None:
    for entry in found.prompts[:2]:
        reference = read(opened, opened.models["reference"], entry).log_softmax(-1)
        kinds = {"uniform": opened.models["uniform"], "mixed": opened.models["mixed"]}
        if entry.repair:
            kinds["repaired"] = promote(opened, entry.repair.units)
        for name, bits in kinds.items():
            candidate = read(opened, bits, entry).log_softmax(-1)
            expected = (reference.exp() * (reference - candidate)).sum(-1)
            told = [getattr(piece, f"kl_{name}") for piece in entry.pieces]
            assert told[0] is None
            torch.testing.assert_close(torch.tensor(told[1:]), expected, rtol=1e-3, atol=1e-4)


def test_blame_equals_building_each_model_whole(opened: OpenedRun, found: Explanations) -> None:
    for entry in apart(found)[:3]:
        assert entry.parting is not None
        token, place = entry.parting.reference.token, entry.parting.position
        low = opened.models["uniform"]
        assert [row.block for row in entry.blocks] == [0, 1]
        for row in entry.blocks:
            mine = f"{row.block}."
            alone = {unit: bits for unit, bits in low.items() if unit.startswith(mine)}
            rest = {unit: bits for unit, bits in low.items() if not unit.startswith(mine)}
            for bits, wins, odds in (
                (alone, not row.breaks, row.isolated_probability),
                (rest, row.restores, row.restored_probability),
            ):
                logits = after(entry, read(opened, bits, entry))[place]
                assert (int(logits.argmax()) == token) == wins
                assert float(logits.softmax(-1)[token]) == pytest.approx(odds, rel=1e-3, abs=1e-6)


@torch.no_grad()
def list_repairing(opened: OpenedRun, entry: Explanation) -> list[tuple[str, ...]]:
    """Every set of units whose promotion repairs, by trying them all on one whole model."""
    model, text = opened.model, torch.tensor([[piece.token for piece in entry.pieces]])
    whole = build_whole(model, opened.run.searches, opened.models["reference"])
    blocks = [read_swappable(model, n, opened.run.searches, (4, 8)) for n in range(model.blocks)]
    for number, block in enumerate(blocks):
        whole.set_submodule(model.prefix(number), block.block)
    found = []
    for count in range(1, len(opened.extra_bytes) + 1):
        for units in combinations(opened.extra_bytes, count):
            bits = promote(opened, units)
            for number, block in enumerate(blocks):
                block.use(block.weights(dict(block_mix(model, bits, number))))
            if repairs(entry, whole(text).logits[0, :-1]):
                found.append(units)
    return found


def test_the_repair_is_the_cheapest_of_all_sets(opened: OpenedRun, found: Explanations) -> None:
    entry = max(apart(found), key=lambda entry: entry.repair.extra_bytes if entry.repair else 0)
    sizes = opened.extra_bytes
    repairing = list_repairing(opened, entry)
    assert entry.repair is not None
    assert len(entry.repair.units) > 1
    prices = {units: sum(sizes[unit] for unit in units) for units in repairing}
    assert entry.repair.units in repairing
    assert entry.repair.extra_bytes == prices[entry.repair.units]
    assert set(entry.repair.single) == {units[0] for units in repairing if len(units) == 1}
    for unit in entry.repair.units:
        rest = tuple(other for other in entry.repair.units if other != unit)
        assert rest not in repairing
    if entry.repair.proved:
        assert entry.repair.extra_bytes == min(prices.values())


def first_loss(entry: Explanation, logits: Tensor) -> int | None:
    pairs = zip(after(entry, logits).argmax(-1).tolist(), entry.reference.tokens, strict=True)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), None)


def test_how_far_recipe_and_repair_follow(opened: OpenedRun, found: Explanations) -> None:
    for entry in found.prompts:
        assert entry.mixed is not None
        kinds = [(entry.mixed, opened.models["mixed"])]
        if entry.repair:
            kinds.append((entry.repair.followed, promote(opened, entry.repair.units)))
            assert entry.repair.followed.repairs
        for followed, bits in kinds:
            logits = read(opened, bits, entry)
            assert followed.parts_at == first_loss(entry, logits)
            if entry.parting:
                assert followed.repairs == repairs(entry, logits)
            else:
                assert followed.repairs is None


def test_nothing_depends_on_memory_or_on_the_other_prompts(
    opened: OpenedRun, found: Explanations
) -> None:
    alone = explain(opened, PROMPTS[:1], TOKENS, GIB)
    assert alone.prompts == found.prompts[:1]
    little = explain(opened, PROMPTS[:1], TOKENS, 2**20)
    assert (found.decoding, little.decoding) == ("held", "streamed")
    assert little.prompts == alone.prompts


def test_where_nothing_parts(
    make_model: Callable[..., Path], text_file: Path, tmp_path: Path
) -> None:
    run = write_searched_run(tmp_path / "run", make_model("llama"), text_file, bits=7)
    opened = open_run(run, None)
    found = explain(opened, PROMPTS, 3, GIB)
    same = [entry for entry in found.prompts if entry.parting is None]
    assert same
    for entry in same:
        assert entry.reference == entry.uniform
        assert entry.blocks == ()
        assert entry.repair is None
        assert entry.mixed is not None and entry.mixed.parts_at is None
        assert entry.closest is not None
        margins = []
        logits = after(entry, read(opened, opened.models["uniform"], entry))
        for token, row in zip(entry.reference.tokens, logits, strict=True):
            others = torch.cat([row[:token], row[token + 1 :]])
            margins.append(float(row[token] - others.max()))
        assert entry.closest.margin_uniform == pytest.approx(min(margins), abs=1e-3)
        assert entry.closest.position == margins.index(min(margins))
        assert len(entry.pieces) == entry.prompt_tokens + 3


def test_the_planted_fault_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's model carries its fault in block 5; the sample is a run of it."""
    monkeypatch.chdir(ROOT)
    opened = open_run(RunDirectory(ROOT / "reports" / "sample"), None)
    text = (ROOT / "examples" / "demo" / "valid.txt").read_text(encoding="utf-8")
    prompts = ["Optional SAX2 handler for lexical events."]
    assert prompts[0] in text
    found = explain(opened, prompts, 5, GIB)
    for entry in json.loads(json.dumps(found.to_json()))["prompts"]:
        assert guilty_blocks(entry) == [5]
        assert {unit.partition(".")[0] for unit in entry["repair"]["units"]} == {"5"}
        assert entry["mixed"]["repairs"]


def test_every_prompt_is_answered_in_turn(found: Explanations) -> None:
    assert [entry.prompt for entry in found.prompts] == PROMPTS
    assert found.recipe == "flagged"
    assert found.units == 8
