"""Scores from the likely rows of a head against those of all its logits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from awqscope.diagnose.statistics.likelihood import Reference, prepare_reference, score
from awqscope.diagnose.sweep import likely_rows
from awqscope.diagnose.sweep.branches import REFERENCE, UNIFORM
from awqscope.diagnose.sweep.likely_rows import (
    HeadLog,
    LinearHead,
    join_errors,
    prepare_trunk,
    score_branches,
    take_apart,
)
from awqscope.diagnose.sweep.scoring import score_streams
from awqscope.mixedprec.models.opening import open_model

VOCABULARY, CHANNELS, POSITIONS = 20_000, 48, 64


@dataclass
class PlainHead:
    """A head that is a product, without a norm. calls: how often all logits were made."""

    weight: Tensor
    calls: int = 0

    def __call__(self, hidden: Tensor) -> Tensor:
        self.calls += 1
        return hidden @ self.weight.T

    def normed(self, hidden: Tensor) -> Tensor:
        return hidden


@pytest.fixture
def head() -> PlainHead:
    """Rows of unequal length, as trained heads have, and some that many positions like."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(VOCABULARY, CHANNELS, generator=generator)
    weight *= torch.empty(VOCABULARY, 1).log_normal_(0, 0.3, generator=generator)
    weight[:200] += 1.5 * torch.randn(1, CHANNELS, generator=generator)
    return PlainHead(weight)


def make_states(seed: int, size: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(1, POSITIONS, CHANNELS, generator=generator)


def run_both(
    head: PlainHead, changes: dict[str, tuple[str, float]]
) -> tuple[dict[str, tuple[Tensor, ...]], dict[str, tuple[Tensor, ...]], Reference]:
    """Scores of branches by the likely rows and by all logits. changes: branch -> the trunk it is
    set against, and the size of what it adds to that trunk's states."""
    taken = take_apart(head, make_states(1, 0.8))
    assert taken is not None
    finals = {REFERENCE: make_states(1, 0.8)}
    finals[UNIFORM] = finals[REFERENCE] + make_states(2, 0.1)
    targets = torch.randint(0, VOCABULARY, (POSITIONS,), generator=torch.Generator().manual_seed(3))
    reference = prepare_reference(head(finals[REFERENCE])[0])
    trunks = {}
    for name, states in finals.items():
        logits = head(states)[0]
        own = reference if name == REFERENCE else prepare_reference(logits)
        kl = score(reference, logits, targets)[1]
        trunks[name] = prepare_trunk(taken, states, own, reference, kl)
    branches: dict[str, dict[str, Tensor]] = {name: {} for name in trunks}
    for seed, (name, (trunk, size)) in enumerate(changes.items(), 10):
        branches[trunk][name] = finals[trunk] + make_states(seed, size)
    head.calls = 0
    found = score_branches(trunks, REFERENCE, branches, targets, 0)
    calls = head.calls
    whole = {
        name: score(reference, head(states)[0], targets)
        for each in branches.values()
        for name, states in each.items()
    }
    head.calls = calls
    return found, whole, reference


def test_they_are_those_of_all_logits(head: PlainHead) -> None:
    """Against either trunk, for small and for larger changes; in double precision KL is what
    torch's own divergence says (test_likelihood)."""
    changes = {
        f"{trunk} {size}": (trunk, size) for trunk in (REFERENCE, UNIFORM) for size in (0.003, 0.05)
    }
    found, whole, _ = run_both(head, changes)
    assert found.keys() == changes.keys()
    assert head.calls == 0
    for name in changes:
        (nll, kl, agree), (all_nll, all_kl, all_agree) = found[name], whole[name]
        assert kl.mean().item() == pytest.approx(all_kl.mean().item(), rel=2e-3)
        torch.testing.assert_close(kl, all_kl, rtol=0.1, atol=2e-4)
        # What KL is off by, the likelihood is off by.
        torch.testing.assert_close(nll - all_nll, kl - all_kl, rtol=0, atol=1e-4)
        assert torch.equal(agree, all_agree)


def test_most_rows_are_not_read(head: PlainHead, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    choose = likely_rows._choose_rows

    def counted(*args: object) -> object:
        groups = choose(*args)
        read.extend(len(group.rows) for group in groups)
        return groups

    monkeypatch.setattr(likely_rows, "_choose_rows", counted)
    run_both(head, {"one": (REFERENCE, 0.01)})
    assert len(read) == POSITIONS // likely_rows.GROUP
    assert sum(read) / len(read) < VOCABULARY / 4


def test_the_sample_has_no_bias(head: PlainHead, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few rows taken exactly, errors of positions are as large as their standard error says
    and cancel."""
    monkeypatch.setattr(likely_rows, "LEAST", 1e-3)
    monkeypatch.setattr(likely_rows, "MOST_ERROR", 1e9)
    found, whole, _ = run_both(head, {f"{n}": (REFERENCE, 0.03) for n in range(40)})
    errors = torch.stack([found[name][1] - whole[name][1] for name in found])
    assert errors.abs().max() > 1e-5
    # Branches share the rows of a position; positions have their own.
    by_position = errors.mean(0)
    assert by_position.mean().abs() < 4 * by_position.std() / POSITIONS**0.5


def test_a_flat_distribution_is_scored_too(
    head: PlainHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no row that stands out: what there is of KL is found by the sample alone."""
    head.weight *= 1e-3
    monkeypatch.setattr(likely_rows, "LEAST", 1.0)
    found, whole, _ = run_both(head, {"one": (REFERENCE, 0.5), "other": (UNIFORM, 0.5)})
    for name, (nll, kl, agree) in found.items():
        torch.testing.assert_close(nll, whole[name][0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(kl, whole[name][1], rtol=0.1, atol=1e-7)
        assert agree.shape == whole[name][2].shape


def test_what_is_doubtful_is_scored_in_full(
    head: PlainHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, whole, _ = run_both(head, {"far": (REFERENCE, 30.0), "near": (REFERENCE, 0.003)})
    # Half of the positions at once, however many branches are doubtful.
    assert head.calls == 2
    for part, expected in zip(found["far"], whole["far"], strict=True):
        torch.testing.assert_close(part, expected)
    monkeypatch.setattr(likely_rows, "MOST_ERROR", 0.0)
    found, whole, _ = run_both(head, {"near": (UNIFORM, 0.003)})
    for part, expected in zip(found["near"], whole["near"], strict=True):
        torch.testing.assert_close(part, expected)


@pytest.mark.parametrize(
    ("family", "is_product"),
    [
        *(("llama", True), ("cohere", True), ("granite", True)),
        *(("minicpm3", True), ("gemma2", False), ("gptj", False)),
    ],
)
def test_heads_that_are_no_product_are_left_whole(
    make_model: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    is_product: bool,
) -> None:
    """gemma2 bounds its logits, gptj adds a bias; cohere, granite and minicpm3 scale."""
    monkeypatch.setattr(likely_rows, "FEWEST_ROWS", 1)
    changes = {"granite": {"logits_scaling": 4.0}, "gemma2": {"final_logit_softcapping": 5.0}}
    model = open_model(str(make_model(family, **changes.get(family, {}))))
    found = model.read_head()
    if family == "gptj":
        found.module.lm_head.bias.data += torch.randn(384)
    hidden = torch.randn(1, 8, model.config.hidden_size)
    taken = take_apart(found, hidden)
    assert (taken is not None) == is_product
    if taken is not None:
        expected = found(hidden)[0]
        scale = expected.abs().max().item()
        logits = taken.states(hidden)[0] @ taken.weight.T
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4 * scale)


def test_streams_are_scored_by_them(
    make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several windows and cuts of a window; those that are asked for tokens stay whole."""
    model = open_model(str(make_model("llama", vocab_size=2048)))
    windows = torch.randint(0, 2048, (3, 40), generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    reference = 3 * torch.randn(3, 40, 128, generator=generator)
    finals = {REFERENCE: reference, UNIFORM: reference + 0.3 * torch.randn(3, 40, 128)}
    for number in range(6):
        trunk = finals[REFERENCE if number % 2 else UNIFORM]
        finals[f"branch {number}"] = trunk + 0.1 * torch.randn(trunk.shape, generator=generator)
    head = model.read_head()
    whole = score_streams(head, windows, finals, 2048, ranked=(REFERENCE, UNIFORM))
    for name, value in {"FEWEST_ROWS": 1, "LEAST": 1e-4, "SAMPLES": 256}.items():
        monkeypatch.setattr(likely_rows, name, value)
    monkeypatch.setattr("awqscope.diagnose.sweep.scoring.FEWEST_BRANCHES", 6)
    monkeypatch.setattr("awqscope.diagnose.statistics.likelihood.LOGIT_BYTES", 2048 * 4 * 16)
    monkeypatch.setattr("awqscope.diagnose.statistics.likelihood.FEWEST_POSITIONS", 1)
    trunks, log = (REFERENCE, UNIFORM), HeadLog()
    near = score_streams(
        head, windows, finals, 2048, ranked=(REFERENCE, UNIFORM), trunks=trunks, log=log
    )
    for name, scores in near.items():
        expected = whole[name]
        assert scores.kl.mean().item() == pytest.approx(expected.kl.mean().item(), rel=5e-3)
        assert torch.equal(scores.agree, expected.agree)
        if name in trunks:
            assert torch.equal(scores.top_tokens, expected.top_tokens)
            torch.testing.assert_close(scores.kl, expected.kl)
    assert any(not torch.equal(near[name].kl, whole[name].kl) for name in near)
    checked = join_errors([log.state(), {}, log.state()])
    assert checked is not None and checked[0] == 2 * 16
    assert 0 < checked[1] < 0.05
    assert sorted(log.found) == [f"branch {number}" for number in range(6)]
    assert HeadLog().state() == {} and join_errors([{}]) is None


def test_few_streams_and_small_vocabularies_are_scored_whole(head: PlainHead) -> None:
    finals = {REFERENCE: make_states(1, 1.0), UNIFORM: make_states(2, 1.0)}
    finals["branch"] = make_states(3, 1.0)
    windows = torch.zeros(1, POSITIONS, dtype=torch.long)
    few = score_streams(head, windows, finals, VOCABULARY, trunks=(REFERENCE, UNIFORM))
    whole = score_streams(head, windows, finals, VOCABULARY)
    assert torch.equal(few["branch"].kl, whole["branch"].kl)
    assert take_apart(PlainHead(torch.randn(1000, CHANNELS)), finals[REFERENCE]) is None
    assert isinstance(take_apart(head, finals[REFERENCE]), LinearHead)


def test_checks_of_different_branches_are_joined_by_name() -> None:
    first, second = HeadLog(), HeadLog()
    for log, names in ((first, "ab"), (second, "b")):
        log.positions = 10
        for name in names:
            log.note(name, torch.full((10,), 1.1 if name == "b" else 2.0), torch.full((10,), 1.0))
    second.note("b", torch.full((10,), 0.5), torch.full((10,), 1.0))
    assert join_errors([first.state(), second.state()]) == (20, pytest.approx(1.0))
    only = join_errors([{k: v for k, v in first.state().items() if k != "kl.a"}, second.state()])
    assert only == (20, pytest.approx(1 - (11 + 11 + 5) / 30))
