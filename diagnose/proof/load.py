"""A quantized checkpoint as transformers and compressed-tensors hold it, whole or block by block.

Both ways the modules, the config's parsing and matching, and the unpacking of weights are theirs;
block by block each decoder layer is filled from the files when it is needed, and dropped. Both give
the same logits to the last bit.
"""

import copy
import gc
from collections.abc import Iterator
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.quantizers import AutoHfQuantizer
from transformers.utils import logging

from awqscope.diagnose.machine.memory import return_freed_heap
from awqscope.mixedprec.checkpoints.reader import StoredCheckpoint
from awqscope.mixedprec.families.table import find_family, fit_family
from awqscope.mixedprec.models.forward import run_block
from awqscope.mixedprec.models.source import SourceModel, make_shell
from awqscope.mixedprec.models.streams import StreamSpace
from awqscope.mixedprec.models.weights import is_finite

How = Literal["whole", "by block"]


class Loaded(Protocol):
    """A checkpoint, loaded. how: all of it at once, or block by block. overflowed: the first part,
    known block by block, whose output was not finite in the logits asked for last; None where all
    was."""

    how: How
    overflowed: str | None

    def logits(self, windows: Tensor) -> Iterator[Tensor]:
        """Logits [length, vocabulary], float32, of each of `windows` [n, length]."""
        ...

    def block(self, number: int) -> nn.Module:
        """A module that holds the decoder layer, its weights unpacked, under its full name; to be
        asked for after the logits."""
        ...


class _Whole:
    how: How = "whole"
    overflowed: str | None = None

    def __init__(self, model: Any):
        self._model = model

    def logits(self, windows: Tensor) -> Iterator[Tensor]:
        for window in windows:
            yield self._model(input_ids=window[None], use_cache=False).logits[0].float()

    def block(self, number: int) -> nn.Module:
        # transformers unpacks compressed weights at the first forward.
        return self._model


class _ByBlock:
    how: How = "by block"
    overflowed: str | None = None

    def __init__(self, source: SourceModel, compressor: Any, space: StreamSpace):
        self._source, self._compressor, self._space = source, compressor, space
        self._dtype = source.dtype

    def logits(self, windows: Tensor) -> Iterator[Tensor]:
        count, length = windows.shape
        self.overflowed = None
        entrance = self._source.read_entrance(windows.unique())
        _convert(entrance.module, self._dtype)
        all_kwargs = entrance.block_kwargs(length)
        # What is kept in float32 holds every 16-bit value.
        stream = self._space.empty(count, length, self._source.config.hidden_size)
        # One window at a time, as the whole model is run: other shapes are other roundings.
        places = [slice(number, number + 1) for number in range(count)]
        for place in places:
            stream.write(place, self._checked(entrance.enter(windows[place]), "the embedding"))
        del entrance
        for number in range(self._source.blocks):
            block = self._read_block(number)
            for place in places:
                hidden = stream.read(place).to(self._dtype)
                output = run_block(block, hidden, all_kwargs[number])
                stream.write(place, self._checked(output, f"block {number}"))
            del block  # before the next is read: one at a time
            let_go()
        head = self._source.read_head()
        _convert(head.module, self._dtype)
        for place in places:
            yield self._checked(head(stream.read(place).to(self._dtype)), "the head")[0]

    def _checked(self, values: Tensor, name: str) -> Tensor:
        """`values` in float32; the first part to give any that are not finite is kept."""
        if self.overflowed is None and not is_finite(values):
            self.overflowed = name
        return values.float()

    def block(self, number: int) -> nn.Module:
        whole = place = nn.Module()
        *outer, last = self._source.prefix(number).split(".")
        for name in outer:
            inner = nn.Module()
            place.add_module(name, inner)
            place = inner
        place.add_module(last, self._read_block(number))
        return whole

    def _read_block(self, number: int) -> nn.Module:
        """A decoder layer, its weights unpacked."""
        prefix = self._source.prefix(number)
        block = copy.deepcopy(self._source.shell.get_submodule(prefix))
        names = [name for name, _ in block.named_parameters()]
        stored = self._source.read(f"{prefix}.{name}" for name in names)
        state = {name: stored.pop(f"{prefix}.{name}") for name in names}
        # As `from_pretrained` with that type does.
        state = {n: v.to(self._dtype) if v.is_floating_point() else v for n, v in state.items()}
        block.load_state_dict(state, strict=False, assign=True)
        del state
        self._compressor.decompress_model(block)
        return block


def _convert(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert the parameters of a module to a type. Buffers keep theirs, as they must."""
    for parameter in module.parameters():
        if not parameter.is_meta:
            parameter.data = parameter.data.to(dtype)


def let_go() -> None:
    """Give the memory of dropped blocks back to the system. compressed-tensors' modules refer to
    themselves, so that only a collection frees them."""
    gc.collect()
    return_freed_heap()


def load_checkpoint(
    checkpoint: StoredCheckpoint,
    how: How,
    space: StreamSpace,
    *,
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
) -> Loaded:
    """Load a compressed-tensors checkpoint in a type. space: where the stream of one loaded block
    by block is kept. trust_remote_code: run Python that comes with it."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    given: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    folder, name = checkpoint.folder, str(checkpoint.folder)
    config = AutoConfig.from_pretrained(folder, **given)
    if trust_remote_code:
        config.model_type = type(config).model_type
    family = fit_family(find_family(config.model_type), config, name)
    if how == "whole":
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, **given
        )
        return _Whole(model.eval())
    quantizer = AutoHfQuantizer.from_config(config.quantization_config, pre_quantized=True)
    quantizer.validate_environment()
    shell = make_shell(config, family, name, trust_remote_code=trust_remote_code)
    # What from_pretrained does before it reads weights: modules get their schemes and the packed
    # parameters that the files hold.
    quantizer.preprocess_model(shell, dtype=dtype)
    source = SourceModel(
        name,
        folder,
        config,
        family,
        dtype,
        checkpoint.catalogue,
        checkpoint.tensors,
        shell,
    )
    return _ByBlock(source, quantizer.compressor, space)
