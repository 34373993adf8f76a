"""Every unit's damage at every width from one forward and one backward pass.

For a unit whose output changes by δ_t at token t,

    KL ≈ ½ · E[ Σ_t (g_t·δ_t)² ],    g_t = ∂ Σ log p(y) / ∂ output_t,   y ~ p, the reference itself.

This is the second-order expansion of the KL with the Fisher information in its sampled form: no
labels, no first-order term, tokens treated as independent. The backward pass goes block by block
from saved block inputs, so that one block is in memory at a time.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from diagnose.likelihood import tokens_a_chunk
from diagnose.quantized import SwappableBlock, read_swappable
from mixedprec.model import (
    Head,
    SourceModel,
    advance,
    batch_size,
    enter_blocks,
    get_linear,
    run_block,
)

WINDOWS_A_SEED = 2**24


def _head_gradient(head: Head, hidden: Tensor, vocabulary: int, seed: int, first: int) -> Tensor:
    """∂ Σ log p(y) / ∂ hidden for y sampled at every scored position; [n, length, d].

    A window's samples depend on the seed and its number (from `first`), not on its chunk."""
    gradient = torch.zeros_like(hidden)
    step = tokens_a_chunk(vocabulary)
    length = hidden.shape[1]
    for window in range(len(hidden)):
        generator = torch.Generator().manual_seed(seed * WINDOWS_A_SEED + first + window)
        for start in range(0, length - 1, step):
            here = slice(start, min(start + step, length - 1))
            states = hidden[window : window + 1, here].detach().requires_grad_(True)
            log_p = head(states).float().log_softmax(-1)[0]
            sampled = torch.multinomial(log_p.detach().exp(), 1, generator=generator)
            log_p.gather(-1, sampled).sum().backward()
            assert states.grad is not None
            gradient[window, here] = states.grad[0]
    return gradient


class _UnitProducts:
    """Collects g_t·δ_t of every unit and width while one batch goes backward through a block."""

    def __init__(
        self, swappable: SwappableBlock, units: dict[str, tuple[str, ...]], deltas: dict
    ) -> None:
        self.products: dict[tuple[str, int], Tensor] = {}
        self._deltas = deltas
        self._handles = [
            swappable.block.get_submodule(linear).register_forward_hook(
                lambda module, args, output, unit=unit, linear=linear: self._watch(
                    unit, linear, args[0].detach(), output
                )
            )
            for unit, linears in units.items()
            for linear in linears
        ]

    def _watch(self, unit: str, linear: str, inputs: Tensor, output: Tensor) -> None:
        def receive(gradient: Tensor) -> None:
            for bits, delta in self._deltas[linear].items():
                product = ((gradient @ delta) * inputs).sum(-1)
                key = (unit, bits)
                self.products[key] = self.products.get(key, 0) + product

        output.register_hook(receive)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def estimate_units(
    model: SourceModel,
    windows: Tensor,
    searches: Path,
    bits: tuple[int, ...],
    *,
    seed: int,
    first: int = 0,
    on_block: Callable[[int], None] = lambda done: None,
) -> dict[tuple[str, int], Tensor]:
    """(unit name, bits) -> estimated mean token KL of quantizing that unit alone, by window [n].

    windows: token ids [n, length], of which the first is number `first` of the whole text's. The
    sampled tokens depend on `seed` and that number alone.
    """
    with torch.no_grad():
        hidden, all_kwargs = enter_blocks(model, windows)
        inputs = []
        for number in range(model.blocks):
            inputs.append(hidden.clone())
            advance(model.read_block(number), hidden, all_kwargs[number])
            on_block(number + 1)
    gradient = _head_gradient(model.read_head(), hidden, model.config.vocab_size, seed, first)
    scored = windows.shape[1] - 1
    estimates: dict[tuple[str, int], Tensor] = {}
    for number in reversed(range(model.blocks)):
        swappable = read_swappable(model, number, searches, bits)
        units = {f"{number}.{kind.name}": kind.linears for kind in model.family.units}
        linears = [linear for group in units.values() for linear in group]
        deltas: dict[str, dict[int, Tensor]] = {linear: {} for linear in linears}
        for width in bits:
            widths = dict.fromkeys(linears, width)
            for linear, weight in swappable.weights(widths).items():
                swappable.use({})
                reference = get_linear(swappable.block, linear).weight.data
                deltas[linear][width] = weight - reference
            swappable.forget(widths)
        swappable.use({})
        stream = inputs.pop()
        size = batch_size(windows.shape[1])
        found: dict[tuple[str, int], list[Tensor]] = {}
        watcher = _UnitProducts(swappable, units, deltas)
        for batch, upstream in zip(stream.split(size), gradient.split(size), strict=True):
            states = batch.detach().requires_grad_(True)
            watcher.products = {}
            run_block(swappable.block, states, all_kwargs[number]).backward(upstream)
            assert states.grad is not None
            upstream.copy_(states.grad)
            for key, product in watcher.products.items():
                found.setdefault(key, []).append(0.5 * product.square().sum(-1) / scored)
        watcher.remove()
        del swappable, deltas, watcher  # before the next is read: one at a time
        estimates |= {key: torch.cat(parts) for key, parts in found.items()}
        on_block(2 * model.blocks - number)
    return estimates
