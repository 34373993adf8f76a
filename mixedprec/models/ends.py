"""What runs before the first block and after the last one, as transformers' own modules do it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions


class Recorder(nn.Module):
    """Stands where a block would: keeps what it was called with, passes the stream on."""

    hidden: Tensor
    kwargs: dict[str, Any]

    def __init__(self, returns_tuple: bool):
        super().__init__()
        self._returns_tuple = returns_tuple

    def forward(
        self, hidden_states: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor | tuple[Tensor, None]:
        self.hidden, self.kwargs = hidden_states, kwargs
        return (hidden_states, None) if self._returns_tuple else hidden_states


@dataclass
class _Decoded(BaseModelOutputWithPastAndCrossAttentions):
    """What a decoder gives its head, of any architecture."""

    router_logits: tuple[Tensor, ...] | None = None


class FinalNorm(nn.Module):
    """Stands where the decoder would: all that is left of it is its final norm."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, *args: Any, inputs_embeds: Tensor, **kwargs: Any) -> _Decoded:
        return _Decoded(last_hidden_state=self.norm(inputs_embeds))


class Entrance:
    """What runs before the blocks. `enter` gives the stream; `block_kwargs` what each block is
    called with beside it (mask, positions), for one window, to be broadcast over a batch."""

    def __init__(self, base: nn.Module, recorders: list[Recorder], tokens: Tensor | None = None):
        self.module = base
        self._recorders = recorders
        self._tokens = tokens

    @torch.no_grad()
    def enter(self, windows: Tensor) -> Tensor:
        """Token ids [n, length] to hidden states [n, length, d], float32."""
        known = (
            windows
            if self._tokens is None
            else torch.searchsorted(self._tokens, windows.contiguous())
        )
        self.module(input_ids=known, use_cache=False)
        return self._recorders[0].hidden

    @torch.no_grad()
    def block_kwargs(self, length: int) -> list[dict[str, Any]]:
        """Keyword arguments of each block for windows of `length` tokens."""
        self.module(input_ids=torch.zeros(1, length, dtype=torch.long), use_cache=False)
        return [recorder.kwargs for recorder in self._recorders]


class Head:
    """What runs after the blocks: hidden states [n, length, d] to logits [n, length, vocabulary],
    float32, with whatever scaling or capping the architecture adds."""

    def __init__(self, shell: Any, decoder: str):
        self.module = shell
        self._decoder = decoder

    def __call__(self, hidden: Tensor) -> Tensor:
        return self.module(inputs_embeds=hidden, use_cache=False).logits

    @property
    def weight(self) -> Tensor:
        """The weight that makes logits of normed states, [vocabulary, d]."""
        found: Tensor = self.module.lm_head.weight
        return found

    def normed(self, hidden: Tensor) -> Tensor:
        """The states after the final norm alone."""
        decoder = self.module.get_submodule(self._decoder)
        found: Tensor = decoder(inputs_embeds=hidden).last_hidden_state
        return found
