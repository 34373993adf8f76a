"""What TGI would make of checkpoints without zero points, sound and with one of its rules broken
each. The outcomes are those of its own loader (3.3.6-dev0, db931fc) beside compressed-tensors
0.9.1, run once without its kernels; it is not on PyPI."""

from collections.abc import Callable
from pathlib import Path

import pytest

from awqscope.mixedprec.checkpoints.serving import LOADS, REFUSES, WRONG
from awqscope.mixedprec.checkpoints.tgi import TGI
from awqscope.mixedprec.checkpoints.writer import examine_in_tgi
from awqscope.mixedprec.models.catalogue import open_catalogue
from awqscope.mixedprec.models.source import SourceModel
from tests.help.spoiled import (
    GATE_UP,
    GROUP,
    LINEARS,
    O_PROJ,
    QKV,
    Change,
    Opened,
    at,
    spoil,
    write_sound,
)

DOWN, UP = at(0, "mlp.down_proj"), at(0, "mlp.up_proj")


@pytest.fixture(scope="module")
def sound(
    make_model: Callable[..., Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SourceModel, Path]:
    """A llama's checkpoint of 4, 8 and 16 bits, all of it symmetric."""
    asymmetric = tmp_path_factory.mktemp("sound") / "checkpoint"
    model = write_sound(asymmetric, make_model("llama"), text_file)
    return model, spoil(asymmetric, asymmetric.with_name("symmetric"), make_symmetric)


def make_symmetric(opened: Opened) -> None:
    """Store every linear of 4 bits without zero points."""
    opened.groups["group_0"]["weights"]["symmetric"] = True
    for block in range(2):
        for name in LINEARS:
            if f"{at(block, name)}.weight_zero_point" in opened.tensors:
                opened.pack(at(block, name), 4, True)


def nothing(opened: Opened) -> None:
    """As written."""


def pack_fused_with_zeros(opened: Opened) -> None:
    opened.spell_out()
    for name in GATE_UP:
        opened.untarget(at(0, name))
        opened.pack(at(0, name), 4, False)
    opened.untarget(at(0, "mlp.gate_up_proj"))
    opened.declare([at(0, name) for name in GATE_UP], 4, False)


def pack_o_with_zeros(opened: Opened) -> None:
    """A linear whose inputs are split: its zero points are found."""
    opened.spell_out()
    opened.untarget(at(0, O_PROJ))
    opened.pack(at(0, O_PROJ), 4, False)
    opened.declare([at(0, O_PROJ)], 4, False)


def store_zeros_only(opened: Opened) -> None:
    opened.pack(UP, 4, False)


def widen_up(opened: Opened) -> None:
    opened.pack(UP, 8, True)


def widen_o(opened: Opened) -> None:
    opened.pack(at(0, O_PROJ), 8, True)


def regroup_o(opened: Opened) -> None:
    """Its kernel takes the groups from the scales, whatever is declared."""
    opened.pack(at(0, O_PROJ), 4, True, GROUP // 2)


def regroup_up(opened: Opened) -> None:
    opened.pack(UP, 4, True, GROUP // 2)


def ignore_q(opened: Opened) -> None:
    """The first part decides for all of them."""
    opened.ignore.append(at(0, QKV[0]))


def ignore_v(opened: Opened) -> None:
    """A part besides the first is not asked."""
    opened.ignore.append(at(0, QKV[2]))


def leave_out_o(opened: Opened) -> None:
    opened.spell_out()
    opened.untarget(at(0, O_PROJ))


def leave_out_v(opened: Opened) -> None:
    opened.spell_out()
    opened.untarget(at(0, QKV[2]))


def name_a_target_twice(opened: Opened) -> None:
    opened.declare([opened.groups["group_0"]["targets"][0]], 4, True)


def leave_it_unfinished(opened: Opened) -> None:
    opened.quantization["quantization_status"] = "initialized"


def keep_up(opened: Opened) -> None:
    opened.unpack(UP)


def declare_three_bits(opened: Opened) -> None:
    opened.declare(["re:nothing"], 3, True)


def lose_scales(opened: Opened) -> None:
    del opened.tensors[f"{at(0, O_PROJ)}.weight_scale"]


SPOILED: dict[Change, str] = {
    nothing: LOADS,
    pack_fused_with_zeros: REFUSES,
    pack_o_with_zeros: WRONG,
    store_zeros_only: WRONG,
    widen_up: REFUSES,
    widen_o: REFUSES,
    regroup_o: LOADS,
    regroup_up: REFUSES,
    ignore_q: REFUSES,
    ignore_v: LOADS,
    leave_out_o: REFUSES,
    leave_out_v: LOADS,
    name_a_target_twice: REFUSES,
    leave_it_unfinished: REFUSES,
    keep_up: REFUSES,
    declare_three_bits: REFUSES,
    lose_scales: REFUSES,
}


@pytest.mark.parametrize("change", SPOILED, ids=lambda change: change.__name__)
def test_spoiled_checkpoints(
    change: Change, sound: tuple[SourceModel, Path], tmp_path: Path
) -> None:
    model, checkpoint = sound
    path = spoil(checkpoint, tmp_path / "spoiled", change)
    found = examine_in_tgi(open_catalogue(path), model)
    assert found.outcome(TGI) == SPOILED[change], found.notes


def test_zero_points_are_a_limit_of_its_own(
    make_model: Callable[..., Path], text_file: Path, tmp_path: Path
) -> None:
    model = write_sound(tmp_path / "out", make_model("llama"), text_file)
    found = examine_in_tgi(open_catalogue(tmp_path / "out"), model)
    assert found.outcome(TGI) == REFUSES and not found.faults
    assert any("it looks for zero points as qzeros" in note for note in found.notes)
