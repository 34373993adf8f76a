"""Variants against the naive way: each model built whole and run alone on its own text."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from awqscope.diagnose.trials.variants import Variant, run_variants, split_variants
from awqscope.mixedprec.families.table import list_units
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.served import read_ends
from tests.help.searched import build_whole, write_searched_run


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_every_variant_equals_the_naive_model(
    family: str, make_model: Callable[..., Path], text_file: Path, tmp_path: Path
) -> None:
    path = make_model(family, num_hidden_layers=3)
    run = write_searched_run(tmp_path / "run", path, text_file)
    model = open_model(str(path))
    units = [unit.name for unit in list_units(model.family, model.blocks)]
    chance = random.Random(5)
    texts = [tuple(range(40, 40 + length)) for length in (1, 9, 30)]
    uniform = dict.fromkeys(units, 4)
    mixes = [{}, dict.fromkeys(units, 16), uniform]
    mixes += [{**uniform, "1.o": 8}, {**uniform, "2.down": 16}]
    mixes += [{unit: chance.choice((4, 8, 16)) for unit in units} for _ in range(2)]
    variants = [Variant(text, mix, stored=True) for text in texts for mix in mixes]
    seen: list[int] = []
    finals = run_variants(model, read_ends(model), variants, run.searches, on_block=seen.append)
    assert seen == [1, 2, 3]
    head = model.read_head()
    for mix in mixes:
        whole = build_whole(model, run.searches, mix)
        for variant, final in zip(variants, finals, strict=True):
            if variant.bits is mix:
                expected = whole(torch.tensor([variant.tokens])).logits
                torch.testing.assert_close(head(final), expected, rtol=1e-4, atol=1e-4)


def test_parts_fit_and_lose_nothing() -> None:
    variants = [Variant(tuple(range(length)), {}, False) for length in (5, 1, 8, 2, 2, 40)]
    size = 16 * 4 * 2
    parts = split_variants(variants, 16, 10 * size)
    assert [len(part) for part in parts] == [2, 2, 1, 1]
    assert [variant for part in parts for variant in part] == variants
    assert split_variants([], 16, 1) == []
