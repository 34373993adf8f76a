"""Blocks compute in the precision that is asked for, and nothing else does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.dtypes import (
    BFLOAT16,
    FLOAT32,
    TF32,
    check_precision,
    choose_precision,
)
from awqscope.mixedprec.models.forward import (
    computing_in,
    current_precision,
    enter_blocks,
    run_block,
)
from awqscope.mixedprec.models.opening import open_model
from tests.help.tiny import FAMILIES, MIXTURES

# bfloat16 rounds to a 256th. A router may send a token to other experts for it.
ERROR, MIXTURE_ERROR = 0.05, 0.3


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_computes_in_bfloat16_between_streams_in_float32(
    family: str, make_model: Callable[..., Path]
) -> None:
    model = open_model(str(make_model(family)))
    stream, all_kwargs = enter_blocks(model, torch.arange(64).view(2, 32))
    states, block = stream.read(slice(None)), model.read_block(0)
    expected = run_block(block, states, all_kwargs[0])
    with computing_in(BFLOAT16):
        found = run_block(block, states, all_kwargs[0])
        head = model.read_head()(states)
    assert found.dtype == torch.float32
    error = ((found - expected).norm() / (expected - states).norm()).item()
    assert 1e-4 < error < (MIXTURE_ERROR if family in MIXTURES else ERROR)
    assert torch.equal(run_block(block, states, all_kwargs[0]), expected)
    assert torch.equal(model.read_head()(states), head), "the head is in float32 all the same"


class Watching(nn.Module):
    """Stands where a block would, and notes how float32 products are computed meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def forward(self, hidden: Tensor, **kwargs: Any) -> Tensor:
        self.seen.append(torch.get_float32_matmul_precision())
        if len(self.seen) > 1:
            raise ValueError("enough")
        return hidden


def test_tf32_is_asked_for_in_blocks_alone_and_put_back() -> None:
    watching, states = Watching(), torch.zeros(1, 2, 3)
    before = torch.get_float32_matmul_precision()
    with computing_in(TF32):
        assert torch.get_float32_matmul_precision() == before
        run_block(watching, states, {})
        assert torch.get_float32_matmul_precision() == before
        with pytest.raises(ValueError, match="enough"):
            run_block(watching, states, {})
    assert watching.seen == ["high", "high"]
    assert (torch.get_float32_matmul_precision(), current_precision()) == (before, FLOAT32)


def test_auto_is_by_the_kind_of_device() -> None:
    assert choose_precision("auto", "cpu") == FLOAT32
    assert choose_precision("auto", "cuda") == TF32
    for asked in (FLOAT32, BFLOAT16):
        assert {choose_precision(asked, kind) for kind in ("cpu", "cuda")} == {asked}


def test_tf32_is_refused_on_the_cpu_with_what_to_give_instead() -> None:
    with pytest.raises(InputError, match="is of CUDA devices") as refused:
        choose_precision(TF32, "cpu")
    assert refused.value.remedy == "give --precision float32 or bfloat16"
    with pytest.raises(InputError, match="float16 is not known"):
        check_precision("float16")
