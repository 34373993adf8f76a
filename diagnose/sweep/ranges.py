"""How large activations get, of the reference and of the uniform model as it is served: what the
16-bit type that serves them has to hold.

Watched are the inputs and outputs of every module without children: linears, norms, activation
functions and routers, inside of blocks and in the head. In the basis of the reference a linear of
the uniform model sees other inputs than where it is served: AWQ's scales are taken out of them, and
of what is scaled back. Only inputs and outputs of modules are seen, so the logits of attention are
not.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from awqscope.diagnose.sweep.swappable import Bases
from awqscope.mixedprec.models.ends import Head

# The block number of what is outside the blocks.
OUTSIDE = -1
INPUT, OUTPUT = "input", "output"
# A key of the log: block, module, `input` or `output`, model.
Origin = tuple[int, str, str, str]
Found = Mapping[tuple[str, str], Tensor]


def _list_tensors(value: Any) -> Iterator[Tensor]:
    """The tensors of floating point among a module's arguments or results."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.ndim and value.numel():
            yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _list_tensors(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _list_tensors(each)


def largest(values: Tensor) -> Tensor:
    """The largest |value| by window and channel, [windows, channels] of [windows, length,
    channels]; of any other shape by channel, [1, channels]."""
    flat = values if values.ndim == 3 else values.reshape(1, -1, values.shape[-1])
    return torch.maximum(flat.amax(1), -flat.amin(1)).float().cpu()


class RangeWatch:
    """Notes what goes into every module without children and what comes out, until it is taken."""

    def __init__(self, module: nn.Module):
        self._seen: dict[tuple[str, str], Tensor] = {}
        self._handles = [
            leaf.register_forward_hook(partial(self._note, name), with_kwargs=True)
            for name, leaf in module.named_modules()
            if next(leaf.children(), None) is None
        ]

    def _note(
        self, name: str, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any
    ) -> None:
        for part, values in ((INPUT, (args, kwargs)), (OUTPUT, output)):
            for tensor in _list_tensors(values):
                found, known = largest(tensor), self._seen.get((name, part))
                if known is not None and known.shape == found.shape:
                    found = torch.maximum(found, known)
                elif known is not None:
                    found = torch.maximum(found.amax(), known.amax()).view(1, 1)
                self._seen[name, part] = found

    def take(self, bases: Bases) -> dict[tuple[str, str], Tensor]:
        """What was seen since the last time, by (module, part), [windows or 1]. bases: what is
        divided out of a module's input and output where the model is served."""
        found, self._seen = self._seen, {}
        taken = {}
        for (name, part), values in found.items():
            if name in bases:
                values = values / bases[name][part == OUTPUT].cpu()
            taken[name, part] = values.amax(1)
        return taken

    def remove(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()


class RangeLog:
    """The largest |value| from every origin, and of every window anywhere, by model."""

    def __init__(self, windows: int) -> None:
        """windows: how many flow."""
        self._count = windows
        self._values: dict[Origin, float] = {}
        self._windows: dict[str, Tensor] = {}

    def note(self, block: int, model: str, windows: slice, found: Found) -> None:
        """Add the largest values that `windows` gave in a block, or OUTSIDE of all. found: what
        `RangeWatch.take` gave."""
        by_window = self._windows.setdefault(model, torch.zeros(self._count))
        here = by_window[windows]
        for (name, part), values in found.items():
            # Experts take what tokens they are sent: of all of a block the largest is kept.
            site = re.sub(r"\.experts\.\d+\.", ".experts.", name)
            origin = (block, site, part, model)
            self._values[origin] = max(self._values.get(origin, 0.0), float(values.max()))
            if len(values) == len(here):
                torch.maximum(here, values, out=here)

    def state(self) -> dict[str, Tensor]:
        """Everything found, as arrays: what `join_ranges` takes."""
        state = {
            "origin." + "|".join(map(str, origin)): torch.tensor(value, dtype=torch.float64)
            for origin, value in self._values.items()
        }
        return state | {f"windows.{model}": values for model, values in self._windows.items()}


@dataclass(frozen=True)
class EndWatch:
    """Notes what the final norm and the head take and give while a trunk's logits are made.

    log: takes that in. norm: the full name of the final norm.
    """

    log: RangeLog
    norm: str

    @contextlib.contextmanager
    def watching(self, trunks: Sequence[str], head: Head, window: int) -> Iterator[None]:
        """Note what `head` makes of a window's states, which are those of `trunks`."""
        watch = RangeWatch(head.module)
        try:
            yield
        finally:
            watch.remove()
        stands, seen = f"{self.norm.rpartition('.')[0]}.norm", watch.take({})
        named = {(self.norm if n == stands else n, part): v for (n, part), v in seen.items()}
        for trunk in trunks:
            self.log.note(OUTSIDE, trunk, slice(window, window + 1), named)


def join_ranges(
    chunks: Sequence[tuple[Sequence[int], Mapping[str, Tensor]]],
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The rows of ranges.parquet, and the `range` of the headline, of chunks that are all windows
    of a text together, each with the numbers of its own; none of either where a chunk did not keep
    them."""
    if not all(chunk for _, chunk in chunks):
        return [], None
    values: dict[str, float] = {}
    for _, chunk in chunks:
        for key, value in chunk.items():
            if key.startswith("origin."):
                values[key] = max(values.get(key, 0.0), float(value))
    rows: list[dict[str, Any]] = []
    for key, most in values.items():
        block, site, part, model = key.removeprefix("origin.").split("|")
        number = None if int(block) == OUTSIDE else int(block)
        rows.append({"block": number, "site": site, "part": part, "model": model, "largest": most})
    found = {}
    numbers = torch.tensor([number for some, _ in chunks for number in some])
    for model in dict.fromkeys(row["model"] for row in rows):
        worst = max((row for row in rows if row["model"] == model), key=lambda row: row["largest"])
        windows = torch.empty(len(numbers))
        windows[numbers] = torch.cat([chunk[f"windows.{model}"] for _, chunk in chunks])
        found[model] = {
            **{key: worst[key] for key in ("largest", "block", "site", "part")},
            "window": int(windows.argmax()),
        }
    return rows, found
