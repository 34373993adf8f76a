"""Everything of a block happens where the block is. Without a device: `meta` stands for one, whose
tensors have no values and refuse to be mixed with others."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from awqscope.diagnose.machine.memory import device_free_bytes, device_peak_bytes
from awqscope.diagnose.statistics.likelihood import prepare_reference, rank_tokens, score
from awqscope.mixedprec.awq.arithmetic import fake_quantize, quantize
from awqscope.mixedprec.awq.choices import BlockSearch, ScaleChoice
from awqscope.mixedprec.awq.clipping import best_clip, group_grams
from awqscope.mixedprec.awq.losses import (
    list_scalings,
    scaled_round_trip,
    second_moment,
    weight_means,
)
from awqscope.mixedprec.awq.realise import realise
from awqscope.mixedprec.families.family import ScaleGroup
from awqscope.mixedprec.models import served
from awqscope.mixedprec.models.forward import advance, enter_blocks
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.streams import HeldStream
from awqscope.mixedprec.scheme import Scheme

DEVICE = torch.device("meta")
SCHEMES = (Scheme(4, 64, False), Scheme(8, 64, True))
INPUTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def test_memory_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all that the process uses; where it uses none, CUDA is not begun."""
    held, free = {0: 0, 1: 700, 2: 300}, {1: 50, 2: 40}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(held))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.delattr(torch.cuda, "max_memory_allocated")
    monkeypatch.delattr(torch.cuda, "mem_get_info")
    assert device_free_bytes([torch.device("cpu")]) is None
    monkeypatch.setattr(
        torch.cuda, "mem_get_info", lambda device: (free[device.index], 80), raising=False
    )
    assert device_free_bytes([torch.device("cuda:1"), torch.device("cuda:2")]) == 40
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", held.get, raising=False)
    assert device_peak_bytes() == 0
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert device_peak_bytes() == 700


def test_devices_cannot_be_mixed() -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(2, device=DEVICE) + torch.ones(2)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_search_stays_on_its_device(scheme: Scheme) -> None:
    weight, inputs = torch.randn(256, 128, device=DEVICE), torch.randn(300, 128, device=DEVICE)
    candidates = list_scalings(inputs.abs().mean(0), weight_means([weight, weight], scheme))
    moment = second_moment(inputs)
    found = [
        fake_quantize(weight, scheme),
        scaled_round_trip(weight, candidates[3], scheme),
        best_clip(weight, group_grams(inputs, 64), scheme),
        moment.matrix,
        quantize(weight, scheme, torch.float16).dequantize(),
    ]
    assert {values.device for values in [candidates, *found]} == {DEVICE}


def make_search(scheme: Scheme) -> BlockSearch:
    group = ScaleGroup("input_layernorm", INPUTS, "self_attn", True)
    after = ScaleGroup("mlp.up_proj", ("mlp.down_proj",), None, False)
    choices = (
        ScaleChoice(group, 0.5, torch.rand(128) + 0.5),
        ScaleChoice(after, 0.5, torch.rand(256) + 0.5),
    )
    clips = {"mlp.down_proj": torch.rand(128, 4), "mlp.up_proj": torch.rand(256, 2)}
    return BlockSearch(scheme, choices, clips)


def test_a_block_is_realised_and_run_on_its_device(
    make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is decided by values has none here; that it is asked of this device's all the same.
    monkeypatch.setattr(served, "is_finite", lambda values: values.device == DEVICE)
    monkeypatch.setattr("awqscope.mixedprec.awq.realise._check_codes", lambda *coded: None)
    monkeypatch.setattr(torch, "equal", lambda one, other: one.device != other.device)
    model = open_model(str(make_model("llama")))
    hidden, all_kwargs = enter_blocks(model, torch.zeros(3, 16, dtype=torch.long))
    block = model.read_block(0).to(DEVICE)
    linears = [linear for kind in model.family.units for linear in kind.linears]
    widths = {name: (4, 8, 16)[place % 3] for place, name in enumerate(linears)}
    widths |= dict.fromkeys(INPUTS, 4)
    searches = {scheme.bits: make_search(scheme).to(DEVICE) for scheme in SCHEMES}
    realised = realise(block, searches, widths, torch.float16)
    effective = {name: linear.effective() for name, linear in realised.linears.items()}
    assert {weight.device for weight in effective.values()} == {DEVICE}
    assert {other.device for other in realised.others.values()} == {DEVICE}
    assert {value.device for value in realised.effective().values()} == {DEVICE}
    assert set(realised.rounded) == {name for name, _ in block.named_parameters()} - {
        f"{name}.weight" for name, bits in widths.items() if bits < 16
    }
    # The stream and what goes with it are on the CPU.
    stream = WatchedStream(hidden.read(slice(None)))
    advance(block, stream, all_kwargs[0])
    assert stream.devices == {DEVICE}


class WatchedStream(HeldStream):
    """Notes where what is written to it comes from."""

    def __init__(self, values: Tensor):
        super().__init__(values)
        self.devices: set[torch.device] = set()

    def write(self, windows: slice, values: Tensor, tokens: slice = slice(None)) -> None:
        self.devices.add(values.device)


def test_scores_are_taken_on_the_device() -> None:
    logits, targets = torch.randn(5, 100, device=DEVICE), torch.zeros(5, device=DEVICE).long()
    reference = prepare_reference(logits)
    found: list[Tensor] = [*score(reference, logits + 1, targets), *rank_tokens(logits)]
    assert {values.device for values in found} == {DEVICE}
