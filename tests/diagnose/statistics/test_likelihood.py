"""NLL and KL against transformers' own loss and torch's own divergence."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from awqscope.diagnose.statistics.likelihood import prepare_reference, score
from awqscope.diagnose.sweep.branches import REFERENCE
from awqscope.diagnose.sweep.scoring import score_streams
from awqscope.mixedprec.models.forward import advance, enter_blocks
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.streams import in_memory


def test_perplexity_and_likeliest_tokens_are_transformers_own(
    make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_model("qwen2")
    model = open_model(str(path))
    windows = torch.randint(0, 384, (4, 48), generator=torch.Generator().manual_seed(1))
    whole = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        losses = [whole(input_ids=w[None], labels=w[None]).loss.item() for w in windows]
        expected = whole(windows).logits[:, :-1].softmax(-1).topk(5)
    # Small chunks of logits, so that their seams are tested too.
    monkeypatch.setattr("awqscope.diagnose.statistics.likelihood.LOGIT_BYTES", 384 * 4 * 7)
    monkeypatch.setattr("awqscope.diagnose.statistics.likelihood.FEWEST_POSITIONS", 1)
    hidden, all_kwargs = enter_blocks(model, windows)
    for number in range(model.blocks):
        advance(model.read_block(number), hidden, all_kwargs[number])
    streams = {REFERENCE: hidden, "again": in_memory().copy(hidden)}
    scores = score_streams(model.read_head(), windows, streams, 384, ranked=("again",))
    found = scores[REFERENCE]
    assert scores["again"] is found
    assert math.exp(found.nll.mean()) == pytest.approx(math.exp(sum(losses) / 4), rel=1e-5)
    assert not found.kl.any()
    assert found.agree.all()
    assert torch.equal(found.top_tokens, expected.indices.int())
    torch.testing.assert_close(found.top_probabilities, expected.values)


def test_kl_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(50, 300, generator=generator)
    other = logits + 0.3 * torch.randn(50, 300, generator=generator)
    targets = torch.randint(0, 300, (50,), generator=generator)
    nll, kl, agree = score(prepare_reference(logits), other, targets)
    p, q = logits.double().log_softmax(-1), other.double().log_softmax(-1)
    expected = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(kl.double(), expected, rtol=1e-4, atol=1e-6)
    expected = torch.nn.functional.cross_entropy(other, targets, reduction="none")
    torch.testing.assert_close(nll, expected)
    assert torch.equal(agree, logits.argmax(-1) == other.argmax(-1))


def test_small_kl_keeps_its_digits() -> None:
    """At 8 bits KL is below the rounding of a float32 log-sum-exp."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(200, 4000, generator=generator) + 25
    other = logits + 1e-3 * torch.randn(200, 4000, generator=generator)
    _, kl, _ = score(prepare_reference(logits), other, torch.zeros(200).long())
    p, q = logits.double().log_softmax(-1), other.double().log_softmax(-1)
    exact = (p.exp() * (p - q)).sum(-1)
    assert (kl >= 0).all()
    torch.testing.assert_close(kl.double(), exact, rtol=1e-2, atol=1e-10)


def test_wrecked_logits_have_a_finite_kl() -> None:
    logits = torch.zeros(3, 50)
    other = torch.zeros(3, 50)
    other[:, 7] = 500.0
    nll, kl, _ = score(prepare_reference(logits), other, torch.zeros(3).long())
    assert torch.allclose(nll, torch.full((3,), 500.0))
    assert torch.allclose(kl, torch.full((3,), 500.0 - 10.0 - torch.tensor(50.0).log().item()))


def test_a_candidate_that_gives_up_the_sure_token_has_a_finite_kl() -> None:
    logits = torch.zeros(3, 50)
    logits[:, 7] = torch.tensor([20.0, 40.0, 80.0])
    nll, kl, _ = score(prepare_reference(logits), torch.zeros(3, 50), torch.full((3,), 7))
    p, q = logits.double().log_softmax(-1), torch.zeros(3, 50).double().log_softmax(-1)
    torch.testing.assert_close(kl.double(), (p.exp() * (p - q)).sum(-1), rtol=1e-5, atol=0)
    torch.testing.assert_close(nll, torch.full((3,), 50.0).log())


def test_kl_of_equal_logits_is_exactly_zero() -> None:
    logits = 10 * torch.randn(20, 1000, generator=torch.Generator().manual_seed(2))
    _, kl, _ = score(prepare_reference(logits), logits.clone(), torch.zeros(20).long())
    assert not kl.any()
