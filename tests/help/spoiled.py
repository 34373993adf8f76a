"""Checkpoints with one rule of the servers broken each, and what their tensors mean when read by
themselves."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from awqscope.mixedprec.checkpoints.serving import LOADS, REFUSES, WRONG
from awqscope.mixedprec.checkpoints.writer import write_checkpoint
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.recipes.recipe import load_recipe
from awqscope.mixedprec.scheme import Width
from tests.help.searched import write_searched_run

Tensors = dict[str, torch.Tensor]
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
FUSED = {"self_attn.qkv_proj": QKV, "mlp.gate_up_proj": GATE_UP}
LINEARS = (*QKV, "self_attn.o_proj", *GATE_UP, "mlp.down_proj")
BLOCKS, GROUP = 2, 64


def at(block: int, linear: str) -> str:
    """The full name of a linear."""
    return f"model.layers.{block}.{linear}"


@dataclass
class Opened:
    """A checkpoint in memory, to be spoiled. `quantization`: config.json's entry."""

    quantization: dict[str, Any]
    tensors: Tensors

    @property
    def groups(self) -> dict[str, Any]:
        return self.quantization["config_groups"]

    @property
    def ignore(self) -> list[str]:
        return self.quantization["ignore"]

    def spell_out(self) -> None:
        """Replace patterns by the names that they match, fused ones included."""
        names = [at(block, name) for block in range(BLOCKS) for name in (*LINEARS, *FUSED)]
        lists = [group["targets"] for group in self.groups.values()]
        for targets in (*lists, self.ignore):
            patterns = [t.removeprefix("re:") for t in targets if t.startswith("re:")]
            found = [name for name in names if any(re.match(p, name) for p in patterns)]
            targets[:] = [t for t in targets if not t.startswith("re:")] + found

    def untarget(self, *names: str) -> None:
        """Take names out of every group."""
        for group in self.groups.values():
            group["targets"] = [target for target in group["targets"] if target not in names]

    def pack(self, linear: str, bits: int, symmetric: bool, group: int = GROUP) -> None:
        """Store a linear anew at other settings, rounded to nearest."""
        weight = meaning(self.tensors)[linear]
        for part in ("weight", "weight_packed", "weight_scale", "weight_zero_point"):
            self.tensors.pop(f"{linear}.{part}", None)
        rows, columns = weight.shape
        grouped = weight.view(rows, -1, group)
        top, middle = 2**bits - 1, 2 ** (bits - 1)
        if symmetric:
            scale = grouped.abs().amax(2) / (middle - 1)
            zero = torch.full_like(scale, middle)
        else:
            low, high = grouped.amin(2).clamp(max=0), grouped.amax(2).clamp(min=0)
            scale = (high - low) / top
            zero = (-low / scale).round()
        scale = scale.half()
        codes = (grouped / scale.float()[:, :, None] + zero[:, :, None]).round().clamp(0, top)
        self.tensors[f"{linear}.weight_packed"] = words(codes.view(rows, columns), bits)
        self.tensors[f"{linear}.weight_scale"] = scale
        self.tensors[f"{linear}.weight_shape"] = torch.tensor([rows, columns])
        if not symmetric:
            packed = words(zero.T.contiguous(), bits).T.contiguous()
            self.tensors[f"{linear}.weight_zero_point"] = packed

    def unpack(self, linear: str) -> None:
        """Store a linear at 16 bits."""
        weight = meaning(self.tensors)[linear].half()
        for part in ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape"):
            self.tensors.pop(f"{linear}.{part}", None)
        self.tensors[f"{linear}.weight"] = weight

    def declare(
        self, targets: list[str], bits: int, symmetric: bool, group: int | None = GROUP
    ) -> None:
        """Add a config group at the end; group None: one a row."""
        weights = {
            "num_bits": bits,
            "type": "int",
            "symmetric": symmetric,
            "strategy": "group" if group else "channel",
            "group_size": group,
        }
        group_name = f"group_{len(self.groups)}"
        self.groups[group_name] = {
            "targets": targets,
            "weights": weights,
            "format": "pack-quantized",
        }


def words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes [rows, columns] in int32 words along the columns, the first one lowest."""
    fields = codes.numpy().astype(np.uint32).reshape(len(codes), -1, 32 // bits)
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    joined = np.bitwise_or.reduce(fields << shifts, axis=2).astype(np.uint32)
    return torch.from_numpy(joined.view(np.int32).copy())


def fields(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """The codes of int32 words, along the last axis."""
    raw = packed.numpy().view(np.uint32)[..., None]
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    codes = (raw >> shifts) & np.uint32(2**bits - 1)
    return torch.from_numpy(codes.reshape(*packed.shape[:-1], -1).astype(np.float32))


def meaning(tensors: Tensors) -> Tensors:
    """The weight of every linear of the blocks, float32, by what is stored of it and nothing else:
    the width by the words a row, asymmetric where there are zero points."""
    found = {}
    for name, value in tensors.items():
        linear, _, part = name.rpartition(".")
        if part == "weight" and value.ndim == 2 and "embed" not in name:
            found[linear] = value.float()
        if part == "weight_packed" and f"{linear}.weight_scale" in tensors:
            rows, columns = tensors[f"{linear}.weight_shape"].tolist()
            bits = value.shape[1] * 32 // columns
            scale = tensors[f"{linear}.weight_scale"].float()
            zero = torch.full_like(scale, 2 ** (bits - 1))
            if f"{linear}.weight_zero_point" in tensors:
                stored = tensors[f"{linear}.weight_zero_point"].T.contiguous()
                zero = fields(stored, bits).T[:rows]
            codes = fields(value, bits).view(rows, scale.shape[1], -1)
            found[linear] = ((codes - zero[:, :, None]) * scale[:, :, None]).view(rows, columns)
    return found


def write_sound(out: Path, model_path: Path, text: Path, **changed: Width) -> SourceModel:
    """A checkpoint of a tiny model with 4, 8 and 16 bits, and the model. changed: other widths."""
    model = open_model(str(model_path))
    first, *_, last = (kind.name for kind in model.family.units)
    second = model.family.units[-2].name
    widths = {f"1.{first}": 8, f"1.{second}": 8, f"0.{last}": 16, **changed}
    run = write_searched_run(out.with_name("run"), model_path, text, changed=widths)
    recipe = load_recipe(run.path / "recipe.json")
    schemes = run.read_searched().spec.schemes_at(recipe.widths.values())
    write_checkpoint(out, model, recipe, run.searches, schemes)
    return model


def spoil(source: Path, out: Path, change: Callable[[Opened], None]) -> Path:
    """A copy of the checkpoint `source` with a change."""
    shutil.copytree(source, out)
    config = json.loads((out / "config.json").read_text())
    opened = Opened(config["quantization_config"], load_file(out / "model.safetensors"))
    change(opened)
    (out / "config.json").write_text(json.dumps(config))
    save_file(opened.tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


Change = Callable[[Opened], None]


@dataclass(frozen=True)
class Fault:
    """A change, and what each consumer makes of the checkpoint then."""

    change: Change
    vllm: str
    sglang: str
    transformers: str


FAULTS: dict[str, Fault] = {}


def fault(vllm: str, sglang: str, transformers: str) -> Callable[[Change], Change]:
    def add(change: Change) -> Change:
        FAULTS[change.__name__] = Fault(change, vllm, sglang, transformers)
        return change

    return add


O_PROJ = "self_attn.o_proj"


@fault(LOADS, LOADS, LOADS)
def nothing(opened: Opened) -> None:
    """As written."""


@fault(LOADS, LOADS, LOADS)
def names_spelled_out(opened: Opened) -> None:
    opened.spell_out()


@fault(LOADS, LOADS, LOADS)
def parts_only(opened: Opened) -> None:
    opened.spell_out()
    opened.untarget(*(at(block, name) for block in range(BLOCKS) for name in FUSED))


@fault(LOADS, LOADS, WRONG)
def fused_name_only(opened: Opened) -> None:
    opened.spell_out()
    opened.untarget(*(at(0, name) for name in QKV))


@fault(LOADS, LOADS, WRONG)
def class_of_the_server(opened: Opened) -> None:
    opened.spell_out()
    opened.untarget(*(at(1, name) for name in (*QKV, "self_attn.qkv_proj")))
    opened.groups["group_1"]["targets"].append("QKVParallelLinear")


@fault(LOADS, LOADS, LOADS)
def rows_as_groups(opened: Opened) -> None:
    opened.spell_out()
    opened.untarget(at(0, O_PROJ))
    opened.pack(at(0, O_PROJ), 8, True, 128)
    opened.declare([at(0, O_PROJ)], 8, True, None)


@fault(WRONG, WRONG, LOADS)
def up_symmetric_beside_gate(opened: Opened) -> None:
    """The fused name is in no group: gate's is taken for both."""
    opened.spell_out()
    opened.untarget(at(0, "mlp.up_proj"), at(0, "mlp.gate_up_proj"))
    opened.pack(at(0, "mlp.up_proj"), 4, True)
    opened.declare([at(0, "mlp.up_proj")], 4, True)


@fault(REFUSES, WRONG, LOADS)
def gate_symmetric_beside_up(opened: Opened) -> None:
    opened.spell_out()
    opened.untarget(at(0, "mlp.gate_proj"), at(0, "mlp.gate_up_proj"))
    opened.pack(at(0, "mlp.gate_proj"), 4, True)
    opened.declare([at(0, "mlp.gate_proj")], 4, True)


@fault(REFUSES, REFUSES, LOADS)
def q_wider_than_k_and_v(opened: Opened) -> None:
    opened.spell_out()
    opened.untarget(at(0, QKV[0]), at(0, "self_attn.qkv_proj"))
    opened.pack(at(0, QKV[0]), 8, True)
    opened.declare([at(0, QKV[0])], 8, True)


@fault(REFUSES, REFUSES, LOADS)
def q_kept_beside_k_and_v(opened: Opened) -> None:
    opened.spell_out()
    opened.untarget(at(0, QKV[0]), at(0, "self_attn.qkv_proj"))
    opened.unpack(at(0, QKV[0]))
    opened.ignore.append(at(0, QKV[0]))


@fault(REFUSES, REFUSES, WRONG)
def o_without_target(opened: Opened) -> None:
    opened.spell_out()
    opened.untarget(at(0, O_PROJ))


@fault(REFUSES, REFUSES, WRONG)
def qkv_without_target(opened: Opened) -> None:
    opened.spell_out()
    opened.untarget(*(at(0, name) for name in (*QKV, "self_attn.qkv_proj")))


@fault(REFUSES, WRONG, WRONG)
def o_ignored_but_packed(opened: Opened) -> None:
    opened.ignore.append(at(0, O_PROJ))


@fault(REFUSES, WRONG, WRONG)
def qkv_ignored_but_packed(opened: Opened) -> None:
    opened.ignore.extend(at(0, name) for name in QKV)


@fault(REFUSES, REFUSES, REFUSES)
def o_wider_than_declared(opened: Opened) -> None:
    """Its zero points take more words too."""
    opened.pack(at(0, O_PROJ), 8, False)


@fault(WRONG, WRONG, REFUSES)
def o_wider_without_zero_points(opened: Opened) -> None:
    opened.spell_out()
    opened.untarget(at(0, O_PROJ))
    opened.pack(at(0, O_PROJ), 8, True)
    opened.declare([at(0, O_PROJ)], 4, True)


@fault(REFUSES, REFUSES, REFUSES)
def gate_up_wider_without_zero_points(opened: Opened) -> None:
    opened.groups["group_1"]["weights"]["num_bits"] = 4


@fault(WRONG, WRONG, WRONG)
def o_symmetric_declared_asymmetric(opened: Opened) -> None:
    opened.pack(at(0, O_PROJ), 4, True)


@fault(WRONG, WRONG, WRONG)
def qkv_symmetric_declared_asymmetric(opened: Opened) -> None:
    for name in QKV:
        opened.pack(at(0, name), 4, True)


@fault(REFUSES, WRONG, WRONG)
def qkv_asymmetric_declared_symmetric(opened: Opened) -> None:
    for name in QKV:
        opened.pack(at(1, name), 8, False)


@fault(WRONG, WRONG, REFUSES)
def o_in_smaller_groups(opened: Opened) -> None:
    opened.pack(at(0, O_PROJ), 4, False, 32)


@fault(REFUSES, REFUSES, REFUSES)
def o_in_larger_groups(opened: Opened) -> None:
    opened.pack(at(0, O_PROJ), 4, False, 128)


@fault(REFUSES, REFUSES, REFUSES)
def v_in_smaller_groups(opened: Opened) -> None:
    opened.pack(at(0, QKV[2]), 4, False, 32)


@fault(REFUSES, WRONG, WRONG)
def o_kept_but_targeted(opened: Opened) -> None:
    opened.unpack(at(0, O_PROJ))


@fault(WRONG, WRONG, WRONG)
def scales_missing(opened: Opened) -> None:
    del opened.tensors[at(0, O_PROJ) + ".weight_scale"]


@fault(WRONG, WRONG, LOADS)
def two_groups_later_one_meant(opened: Opened) -> None:
    """vLLM takes the first, transformers the first in the alphabet."""
    opened.pack(at(0, O_PROJ), 8, True)
    opened.declare([r"re:.*0.self_attn.o_proj$"], 8, True)


@fault(LOADS, LOADS, REFUSES)
def two_groups_first_one_meant(opened: Opened) -> None:
    opened.declare([r"re:.*0.self_attn.o_proj$"], 8, True)


@fault(LOADS, REFUSES, LOADS)
def catch_all_before_named_parts(opened: Opened) -> None:
    """SGLang takes a class before the parts of what it fuses."""
    opened.spell_out()
    opened.untarget(*(at(1, name) for name in FUSED))
    opened.groups["group_0"]["targets"] = ["Linear"]


@fault(LOADS, LOADS, WRONG)
def catch_all_and_the_head(opened: Opened) -> None:
    """transformers takes the head for a packed linear too."""
    opened.spell_out()
    opened.groups["group_0"]["targets"] = ["Linear"]
    opened.ignore.remove("lm_head")


@fault(LOADS, LOADS, REFUSES)
def pattern_of_all_attention(opened: Opened) -> None:
    opened.spell_out()
    opened.untarget(*(at(0, name) for name in (*QKV, O_PROJ, "self_attn.qkv_proj")))
    opened.groups["group_0"]["targets"].append(r"re:.*\.0\.self_attn")
