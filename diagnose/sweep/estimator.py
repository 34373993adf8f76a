"""Every unit's and every linear's damage at every width from one forward and one backward pass.

For a unit whose output changes by δ_t at token t,

    KL ≈ ½ · E[ Σ_t (g_t·δ_t)² ],    g_t = ∂ Σ log p(y) / ∂ output_t,   y ~ p, the reference itself.

This is the second-order expansion of the KL with the Fisher information in its sampled form: no
labels, no first-order term, tokens treated as independent. The backward pass goes block by block
from saved block inputs, so that one block is in memory at a time.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awqscope.diagnose.machine.memory import return_freed_heap
from awqscope.diagnose.statistics.likelihood import tokens_a_chunk
from awqscope.diagnose.sweep.swappable import SwappableBlock, list_linears, read_swappable
from awqscope.mixedprec.families.experts import seen_rows
from awqscope.mixedprec.models.dtypes import FLOAT32, TF32
from awqscope.mixedprec.models.ends import Head
from awqscope.mixedprec.models.forward import (
    advance,
    current_precision,
    device_of,
    enter_blocks,
    move,
    products_in,
    run_block,
)
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import CPU, Stream, StreamSpace, in_memory, list_batches
from awqscope.mixedprec.scheme import Width


@dataclass(frozen=True)
class Estimates:
    """Estimated mean token KL of quantizing one thing alone, by window [n]. units: by unit name and
    width; linears: by full module name and width, each linear alone where a unit has several."""

    units: dict[tuple[str, Width], Tensor]
    linears: dict[tuple[str, Width], Tensor]


def window_seed(seed: int, draw: int, window: int) -> int:
    """What the tokens of window number `window` are sampled with. Torch's generator takes 32 bits
    of a seed on the CPU: all three go into them."""
    digest = hashlib.sha256(f"{seed} {draw} {window}".encode()).digest()
    return int.from_bytes(digest[:4])


def _head_gradient(
    head: Head,
    hidden: Stream,
    vocabulary: int,
    seeds: Callable[[int], int],
    device: torch.device,
) -> None:
    """Put ∂ Σ log p(y) / ∂ hidden, for y sampled at every scored position, in the place of the
    final hidden states [n, length, d].

    seeds: of each window, by its place in `hidden`. Sampled on the CPU, whatever computes: with the
    generator of a device the tokens would be that device's own."""
    step = tokens_a_chunk(vocabulary)
    count, length, channels = hidden.shape
    for window in range(count):
        generator = torch.Generator().manual_seed(seeds(window))
        this = slice(window, window + 1)
        for start in range(0, length - 1, step):
            here = slice(start, min(start + step, length - 1))
            states = hidden.read(this, here).to(device).detach().requires_grad_(True)
            log_p = head(states).float().log_softmax(-1)[0]
            sampled = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator)
            log_p.gather(-1, sampled.to(device)).sum().backward()
            assert states.grad is not None
            hidden.write(this, states.grad, here)
        # Nothing follows the last token.
        hidden.write(this, torch.zeros(1, 1, channels), slice(length - 1, length))


class _Products:
    """Collects g_t·δ_t of every linear and width while one batch goes backward."""

    def __init__(self, swappable: SwappableBlock, deltas: dict[str, dict[Width, Tensor]]) -> None:
        self.found: dict[tuple[str, Width], Tensor] = {}
        self._block = swappable.block
        self._deltas = deltas
        self._handles = [
            swappable.block.get_submodule(linear).register_forward_hook(
                lambda module, args, output, linear=linear: self._watch(
                    linear, args[0].detach(), output
                )
            )
            for linear in deltas
        ]

    def _watch(self, linear: str, inputs: Tensor, output: Tensor) -> None:
        # A device's gradients come in a thread of their own, which knows of no precision.
        precision = current_precision()

        def receive(gradient: Tensor) -> None:
            for bits, delta in self._deltas[linear].items():
                with products_in(precision, gradient.device):
                    change = gradient @ delta
                self.found[linear, bits] = (change.float() * inputs.float()).sum(-1)

        output.register_hook(receive)

    def by_token(self, linear: str, bits: Width, shape: torch.Size) -> Tensor:
        """Of one linear at one width, for a batch of `shape` [n, length]; 0 where an expert did not
        see the token."""
        found = self.found.get((linear, bits))
        if found is not None and found.numel() == shape.numel():
            return found.view(shape)
        products = torch.zeros(shape.numel(), device=device_of(self._block))
        if found is not None:
            products[seen_rows(self._block, linear)] = found
        return products.view(shape)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def estimate_units(
    model: SourceModel,
    windows: Tensor,
    searches: Path,
    bits: tuple[Width, ...],
    *,
    seed: int,
    draw: int = 0,
    numbers: Sequence[int] | None = None,
    on_block: Callable[[int], None] = lambda done: None,
    device: torch.device = CPU,
    space: StreamSpace | None = None,
) -> Estimates:
    """The estimates from one sample of every token.

    windows: token ids [n, length]; numbers: theirs in the whole text, where they are not its
    first. The sampled tokens depend on `seed`, `draw` and that number alone. device: what computes.
    space: where streams are kept; None for memory.
    """
    space = space or in_memory()
    with torch.no_grad():
        hidden, all_kwargs = enter_blocks(model, windows, space)
        inputs = []
        for number in range(model.blocks):
            inputs.append(space.copy(hidden))
            advance(model.read_block(number, device), hidden, all_kwargs[number])
            on_block(number + 1)
    _head_gradient(
        model.read_head(device),
        hidden,
        model.config.vocab_size,
        lambda window: window_seed(seed, draw, numbers[window] if numbers else window),
        device,
    )
    estimates = Estimates({}, {})
    for number in reversed(range(model.blocks)):
        swappable = read_swappable(model, number, searches, bits, device)
        kwargs = move(all_kwargs[number], device)
        found = _go_back(model, number, swappable, bits, inputs.pop(), hidden, kwargs, device)
        estimates.units.update(found.units)
        estimates.linears.update(found.linears)
        del swappable  # before the next is read: one at a time
        return_freed_heap()
        on_block(2 * model.blocks - number)
    return estimates


def _go_back(
    model: SourceModel,
    number: int,
    swappable: SwappableBlock,
    bits: tuple[Width, ...],
    inputs: Stream,
    gradient: Stream,
    kwargs: dict[str, Any],
    device: torch.device,
) -> Estimates:
    """The estimates of block `number`, from its inputs and from the gradient at its output, which
    becomes the one at its input."""
    products = _Products(swappable, _list_deltas(model, swappable, bits))
    scored = inputs.shape[1] - 1
    units: dict[tuple[str, Width], list[Tensor]] = {}
    linears: dict[tuple[str, Width], list[Tensor]] = {}
    for part in list_batches(inputs):
        states = inputs.read(part).to(device).detach().requires_grad_(True)
        products.found = {}
        output = run_block(swappable.block, states, kwargs)
        # The way back is in the types of the way there. Only tf32, which is no type, is lost.
        with products_in(TF32 if current_precision() == TF32 else FLOAT32, device):
            output.backward(gradient.read(part).to(device))
        assert states.grad is not None
        gradient.write(part, states.grad)
        for width in bits:
            for kind in model.family.units:
                found = [
                    products.by_token(linear, width, states.shape[:2]) for linear in kind.linears
                ]
                key = (f"{number}.{kind.name}", width)
                units.setdefault(key, []).append(_expected_kl(sum(found), scored))
                for linear, product in zip(kind.linears, found, strict=True):
                    name = f"{model.prefix(number)}.{linear}"
                    linears.setdefault((name, width), []).append(_expected_kl(product, scored))
    products.remove()
    return Estimates(*({key: torch.cat(kl) for key, kl in by.items()} for by in (units, linears)))


def _list_deltas(
    model: SourceModel, swappable: SwappableBlock, bits: tuple[Width, ...]
) -> dict[str, dict[Width, Tensor]]:
    """What each width adds to the weight [N, K] of each linear of a block, which is left as the
    reference has it."""
    linears = list_linears(model.family)
    deltas: dict[str, dict[Width, Tensor]] = {linear: {} for linear in linears}
    for width in bits:
        widths = dict.fromkeys(linears, width)
        # Norms and routers are rounded as they are stored too, but belong to no unit.
        for linear, reference, weight in swappable.pairs(swappable.weights(widths)):
            # In place: the effective weights themselves are not needed.
            deltas[linear][width] = weight.sub_(reference)
        swappable.forget(widths)
    swappable.use({})
    return deltas


def _expected_kl(products: Tensor | int, scored: int) -> Tensor:
    """½ · Σ (g_t·δ_t)² over the tokens [n, length] of each window, a scored token."""
    assert isinstance(products, Tensor)
    return (0.5 * products.square().sum(-1) / scored).cpu()


def sampling_error(draws: Tensor) -> float:
    """The 95% half-width that sampling tokens adds to estimates [draws, things, windows], relative
    to them, things weighed by their damage.

    Between draws only the sampled tokens differ. With one draw there is no telling that apart from
    how windows differ: their spread then is an upper bound, and infinite for one window.
    """
    count, _, windows = draws.shape
    means = draws.mean((0, 2))
    if means.sum() <= 0:
        return 0.0
    if windows * count < 2:
        return math.inf
    if count > 1:
        variance = draws.var(0).sum(-1) / (count * windows**2)
    else:
        variance = draws[0].var(-1) / windows
    return float(1.96 * variance.sqrt().sum() / means.sum())
