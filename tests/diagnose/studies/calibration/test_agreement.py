"""How far two searches agree, against choices that were changed by hand and levels that were
searched naively."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.calibration.agreement import compare_searches, read_levels
from awqscope.mixedprec.awq.choices import load_search, save_search, search_path
from awqscope.mixedprec.models.forward import get_linear
from awqscope.mixedprec.models.opening import open_model
from tests.help.searched import write_searched_run

MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def run(
    make_model: MakeModel, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunDirectory:
    folder = tmp_path_factory.mktemp("agreement")
    return write_searched_run(folder / "run", make_model("llama"), text_file)


def test_a_search_agrees_with_itself(run: RunDirectory, make_model: MakeModel) -> None:
    model = open_model(str(make_model("llama")))
    found = compare_searches(model, run.searches, run.searches, 4)
    assert found.bits == 4 and found.equal == found.of == 2 * len(found.groups)
    assert [group.kind for group in found.groups] == ["qkv", "gate_up", "down"]
    assert all(group.apart == 0 for group in found.groups)
    assert found.clips == (1.0, *[0.0] * 9)


def test_what_was_changed_is_counted(
    run: RunDirectory, make_model: MakeModel, tmp_path: Path
) -> None:
    """One ratio of block 0 moved by 0.1, and a quarter of the groups of one linear cut two steps
    further."""
    model = open_model(str(make_model("llama")))
    for number in range(model.blocks):
        search = load_search(search_path(run.searches, number, 4))
        if number == 0:
            first, *rest = search.scales
            moved = replace(first, ratio=first.ratio + 0.1)
            name = "mlp.down_proj"
            clip = search.clips[name].clone()
            weight = get_linear(model.read_block(0), name).weight.data
            levels = read_levels(search, name, weight)
            largest = clip / (1 - levels / 20)
            rows = len(clip) // 4
            wanted = torch.where(levels < 5, levels + 2, levels - 2)
            clip[:rows] = (largest * (1 - wanted / 20))[:rows]
            changed = rows * clip.shape[1]
            search = replace(search, scales=(moved, *rest), clips={**search.clips, name: clip})
        save_search(search_path(tmp_path, number, 4), search)
    found = compare_searches(model, run.searches, tmp_path, 4)
    assert found.equal == found.of - 1
    by_kind = {group.kind: group for group in found.groups}
    assert by_kind["qkv"].apart == pytest.approx(0.05)
    groups = sum(
        load_search(search_path(tmp_path, number, 4)).clips[name].numel()
        for number in range(model.blocks)
        for name in load_search(search_path(tmp_path, number, 4)).clips
    )
    assert found.clips[2] == pytest.approx(changed / groups)
    assert found.clips[0] == pytest.approx(1 - changed / groups)


def test_levels_are_steps_below_the_largest_scaled_weight(
    run: RunDirectory, make_model: MakeModel
) -> None:
    """Clip maxima put together again, group by group in plain loops."""
    model = open_model(str(make_model("llama")))
    search, block = load_search(search_path(run.searches, 1, 4)), model.read_block(1)
    assert search.clips
    for name, clip in search.clips.items():
        weight = get_linear(block, name).weight.data
        levels = read_levels(search, name, weight)
        scales = {
            linear: choice.scales for choice in search.scales for linear in choice.group.linears
        }
        after = {choice.group.previous: choice.scales for choice in search.scales}
        for row in range(0, len(weight), 37):
            scaled = weight[row] * scales.get(name, torch.ones(weight.shape[1]))
            if name in after:
                scaled = scaled / after[name][row]
            for group in range(clip.shape[1]):
                largest = scaled[group * 64 : (group + 1) * 64].abs().max()
                expected = largest * (1 - int(levels[row, group]) * 0.05)
                assert clip[row, group].item() == pytest.approx(expected.item(), rel=1e-4)
