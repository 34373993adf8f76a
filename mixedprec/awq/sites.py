"""What a search keeps of the activations inside a block: the inputs of its units, and the outputs
of the modules that linears are judged through.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from awqscope.mixedprec.awq.clipping import CLIP_TOKENS
from awqscope.mixedprec.awq.losses import SecondMoment
from awqscope.mixedprec.models.streams import Stream, StreamSpace


@dataclass(eq=False)
class Site:
    """What is kept of the input that the linears of one unit share, over all calibration tokens.

    windows, length: of the calibration stream. lone: whether a lone linear is judged on it, which
    takes its second moment; otherwise the inputs themselves are kept in `space`, for a module to be
    run on.
    """

    windows: int
    length: int
    lone: bool
    space: StreamSpace
    seen: int = 0

    def __post_init__(self) -> None:
        self.absolute: Tensor | None = None
        self.gram: Tensor | None = None
        self.kept: Stream | None = None
        self.sample: list[Tensor] = []

    @property
    def tokens(self) -> int:
        return self.windows * self.length

    def add(self, inputs: Tensor) -> None:
        """Take in a batch of inputs [n, length, K]."""
        flat = inputs.reshape(-1, inputs.shape[-1])
        total = flat.abs().sum(0)
        self.absolute = total if self.absolute is None else self.absolute + total
        step = max(1, self.tokens // CLIP_TOKENS)
        self.sample.append(flat[-self.seen % step :: step].clone())
        if not self.lone or self.tokens < flat.shape[1]:
            if self.kept is None:
                self.kept = self.space.empty(self.windows, self.length, flat.shape[1])
            here = slice(self.seen, self.seen + len(flat))
            self.kept.reshape(self.tokens, 1).write(here, flat[:, None])
        else:
            gram = flat.T @ flat
            self.gram = gram if self.gram is None else self.gram.add_(gram)
        self.seen += len(flat)

    def mean_size(self) -> Tensor:
        """Mean |x| of each channel, [K]."""
        assert self.absolute is not None
        return self.absolute / self.seen

    def inputs(self) -> Stream:
        """What was kept of all tokens, for a module that is judged on them."""
        assert self.kept is not None
        return self.kept

    def clip_inputs(self) -> Tensor:
        """The tokens [T, K] that clipping is judged on."""
        return torch.cat(self.sample)

    def second_moment(self) -> SecondMoment:
        """Of all tokens, for a lone linear."""
        if self.gram is not None:
            return SecondMoment(self.gram, True)
        found = self.inputs().read(slice(None)).flatten(0, -2)
        return SecondMoment(found.to(self.sample[0].device), False)


class Outputs:
    """A module's output for all calibration windows, taken in batch by batch."""

    def __init__(self, windows: int, space: StreamSpace):
        self._windows, self._space = windows, space
        self._kept: Stream | None = None
        self._seen = 0

    def add(self, output: Tensor) -> None:
        """Take in the next windows' [n, length, d]."""
        if self._kept is None:
            self._kept = self._space.empty(self._windows, *output.shape[1:])
        self._kept.write(slice(self._seen, self._seen + len(output)), output)
        self._seen += len(output)

    def stream(self) -> Stream:
        assert self._kept is not None
        return self._kept
