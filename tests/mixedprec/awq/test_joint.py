"""The race of linears that are judged together ends where judging every scaling on everything
does."""

import pytest
import torch

from awqscope.mixedprec.awq.joint import judge_jointly, survivors
from awqscope.mixedprec.awq.losses import FINE_RATIOS, RATIOS, list_scalings, scaled_round_trip
from awqscope.mixedprec.scheme import Scheme


def race(
    seed: int, mixes_tokens: bool, windows: int, ratios: int, exact: bool
) -> tuple[int, list[float], float]:
    """The scaling that is chosen for the first linear of a small MLP; the loss of every scaling on
    every token; and the share of scalings by tokens that was looked at for the choice."""
    torch.manual_seed(seed)
    scheme = Scheme(4, 32, False)
    inputs = torch.randn(windows, 128, 64) * torch.exp(torch.randn(64))
    first, second = torch.nn.Linear(64, 96), torch.nn.Linear(96, 64)
    shown = 0

    def run(batch: torch.Tensor) -> torch.Tensor:
        nonlocal shown
        shown += batch.shape[0] * batch.shape[1]
        hidden = torch.nn.functional.silu(first(batch))
        return second(hidden.cumsum(1) if mixes_tokens else hidden)

    scalings = list_scalings(inputs.abs().mean((0, 1)), torch.rand(64) + 0.1, ratios)
    with torch.no_grad():
        reference = run(inputs)
        original, losses = first.weight.data, []
        for scales in scalings:
            first.weight.data = scaled_round_trip(original, scales, scheme)
            losses.append((run(inputs) - reference).square().mean().item())
        first.weight.data = original
        shown = 0
        given = ([first], inputs, reference, run, scalings, scheme)
        best = judge_jointly(*given, mixes_tokens=mixes_tokens, exact=exact)
    assert torch.equal(first.weight.data, original)
    return best, losses, shown / (len(scalings) * windows * 128)


@pytest.mark.parametrize("mixes_tokens", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_race_ends_where_judging_everyone_does(seed: int, mixes_tokens: bool) -> None:
    best, losses, looked_at = race(seed, mixes_tokens, 24, RATIOS, exact=True)
    assert best == losses.index(min(losses))
    assert looked_at < 0.8


@pytest.mark.parametrize("mixes_tokens", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_search_that_need_not_be_exact_loses_next_to_nothing(
    seed: int, mixes_tokens: bool
) -> None:
    """Against the best of autoawq's ratios on every token; it sees few of them."""
    best, losses, looked_at = race(seed, mixes_tokens, 64, FINE_RATIOS, exact=False)
    assert losses[best] <= 1.02 * min(losses[::2])
    assert looked_at < 0.25


def test_a_search_that_need_not_be_exact_refuses_what_is_not_finite() -> None:
    linear = torch.nn.Linear(32, 8)
    inputs = torch.full((4, 64, 32), float("nan"))
    with pytest.raises(FloatingPointError):
        judge_jointly(
            [linear],
            inputs,
            linear(inputs),
            linear,
            torch.ones(FINE_RATIOS, 32),
            Scheme(4, 32, False),
            mixes_tokens=False,
            exact=False,
        )


def test_survivors_are_those_within_the_noise() -> None:
    noise = torch.rand(400, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    leader, near, far = 1 + noise, 1.001 + noise.roll(1), 1.5 + noise
    broken = torch.full_like(leader, float("nan"))
    losses = torch.stack([far, leader, broken, near, leader])
    heavy = torch.zeros(5)
    assert survivors(heavy, losses, seen=0.1, errors=5) == [1, 3, 4]
    assert survivors(heavy, losses, seen=1.0, errors=5) == [1, 4]
    assert survivors(heavy, losses[:, :4], seen=0.1, errors=5) == [0, 1, 3, 4]
    # Whoever can only be a little better than the leader is let go; the leader never is.
    assert survivors(heavy, losses, seen=0.1, errors=5, tolerance=0.5) == [1]
    assert survivors(heavy[:1], broken[None], seen=0.1, errors=5) == []
    # What is lost on heavy rows counts once, what is lost on a tenth of the others ten times.
    heavy = torch.tensor([0.0, 2500.0, 0.0, 0.0, 2500.0])
    assert survivors(heavy, losses, seen=0.1, errors=5) == [3]
    assert survivors(heavy, losses, seen=1.0, errors=5) == [3]


def test_a_race_sees_the_few_tokens_that_hold_the_loss() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(1, 4096, 64)
    inputs[0, 1234, 0] = 3000.0
    linear = torch.nn.Linear(64, 64, bias=False)
    scalings = torch.ones(20, 64)
    scalings[:, 0] = torch.linspace(1, 20, 20)
    with torch.no_grad():
        reference = linear(inputs)
        scheme, original, losses = Scheme(4, 32, False), linear.weight.data, []
        for scales in scalings:
            linear.weight.data = scaled_round_trip(original, scales, scheme)
            losses.append((linear(inputs) - reference).square().sum(-1).flatten())
        linear.weight.data = original
        best = judge_jointly(
            [linear], inputs, reference, linear, scalings, scheme, mixes_tokens=False
        )
    with_it = torch.stack(losses).sum(1)
    without = with_it - torch.stack(losses)[:, 1234]
    assert with_it.argmin() != without.argmin()
    assert best == with_it.argmin()
