"""A checkpoint loaded block by block is the one that transformers loads whole, to the last bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from awqscope.diagnose.proof.load import load_checkpoint
from awqscope.mixedprec.awq.choices import BlockSearch, save_search, search_path
from awqscope.mixedprec.checkpoints.reader import open_checkpoint
from awqscope.mixedprec.checkpoints.writer import write_checkpoint
from awqscope.mixedprec.families.table import find_family, list_units
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.streams import CPU, StreamSpace
from awqscope.mixedprec.recipes.recipe import make_recipe
from awqscope.mixedprec.scheme import FP16_BITS, Scheme
from tests.help.tiny import FAMILIES, MIXTURES

# Those that transformers loads packed; mixtures it loads whole only.
PACKED = [n for n in FAMILIES if find_family(n).loads_packed and n not in MIXTURES]
SCHEMES = {4: Scheme(4, 64, False), 8: Scheme(8, 64, True)}


@torch.no_grad()
@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in (torch.float32, torch.float16)),
    ],
)
@pytest.mark.parametrize("family", PACKED)
def test_both_ways_give_the_same_logits_and_weights(
    family: str, dtype: torch.dtype, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    model = open_model(str(make_model(family)))
    # Nothing scaled and nothing clipped: what is tested is how a checkpoint is read.
    for block in range(model.blocks):
        for bits, scheme in SCHEMES.items():
            save_search(search_path(tmp_path, block, bits), BlockSearch(scheme, (), {}))
    names = [unit.name for unit in list_units(model.family, model.blocks)]
    changed = {names[3]: FP16_BITS, names[4]: 8, names[6]: 8}
    recipe = make_recipe("tiny", model.family, model.blocks, 4, changed=changed)
    write_checkpoint(tmp_path / "out", model, recipe, tmp_path, SCHEMES)
    windows = torch.randint(0, 384, (3, 48), generator=torch.Generator().manual_seed(1))
    space = StreamSpace([(CPU, 0)], tmp_path)
    stored = open_checkpoint(tmp_path / "out")
    whole, parts = (
        load_checkpoint(stored, how, space, dtype=dtype) for how in ("whole", "by block")
    )
    for ours, theirs in zip(parts.logits(windows), whole.logits(windows), strict=True):
        assert torch.equal(ours, theirs)
    for number in range(model.blocks):
        prefix = model.prefix(number)
        found = dict(parts.block(number).get_submodule(prefix).named_modules())
        for name, module in whole.block(number).get_submodule(prefix).named_modules():
            if isinstance(module, nn.Linear):
                assert torch.equal(found[name].weight, module.weight), name
    assert (whole.how, parts.how) == ("whole", "by block")
