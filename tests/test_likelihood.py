"""NLL and KL against transformers' own loss and torch's own divergence."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from diagnose.likelihood import prepare_reference, score
from diagnose.proof import reference_stream
from diagnose.sweep import REFERENCE, score_streams
from mixedprec.model import open_model


def test_perplexity_is_transformers_own(
    make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_model("qwen2")
    model = open_model(str(path))
    windows = torch.randint(0, 384, (4, 48), generator=torch.Generator().manual_seed(1))
    whole = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        losses = [whole(input_ids=w[None], labels=w[None]).loss.item() for w in windows]
    # Small chunks of logits, so that their seams are tested too.
    monkeypatch.setattr("diagnose.likelihood.LOGIT_BYTES", 384 * 4 * 7)
    streams = {REFERENCE: reference_stream(model, windows)}
    found = score_streams(model.read_head(), windows, streams, 384)[REFERENCE]
    assert math.exp(found.nll.mean()) == pytest.approx(math.exp(sum(losses) / 4), rel=1e-5)
    assert not found.kl.any()
    assert found.agree.all()


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


def test_kl_of_equal_logits_is_exactly_zero() -> None:
    logits = 10 * torch.randn(20, 1000, generator=torch.Generator().manual_seed(2))
    _, kl, _ = score(prepare_reference(logits), logits.clone(), torch.zeros(20).long())
    assert not kl.any()
