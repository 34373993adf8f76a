"""A probe made by hand, as it is kept beside the sample run; and a run to probe, with a planted
cause."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.diagnose.studies.probes.answer import (
    BlockProbe,
    Measured,
    Refused,
    judge,
    per_megabyte,
    sort_measured,
)
from awqscope.diagnose.studies.probes.asked import ask

# The block of the run whose output projection was spoiled, and one with a unit that is kept.
SPOILED, WITH_KEPT = 1, 2
KINDS = ("qkv", "o", "gate_up", "down")


def make_measured(name: str, gain: float, extra: int, **changes: Any) -> Measured:
    """An alternative that gives back `gain` in the model, give or take 0.001, and twice alone."""
    bounded = (gain, gain - 0.001, gain + 0.001)
    given = {
        "name": name,
        "what": f"{name} in words",
        "isolated": (0.1, 0.09, 0.11),
        "restored": (0.2, 0.19, 0.21),
        "isolated_gain": tuple(2 * value for value in bounded),
        "restored_gain": bounded,
        "extra_bytes": extra,
        "bits_per_weight": 4.5,
        "gain_per_megabyte": per_megabyte(gain, extra),
        "verdict": judge(bounded),
        "widths": None,
        "options": "",
    }
    return Measured(**{**given, **changes})


def make_probe(block: int = 5, **changes: Any) -> BlockProbe:
    """A probe in which o at 8 bits helps most a byte, and half the calibration for no bytes."""
    low = {f"{block}.{kind}": "4" for kind in KINDS}
    alternatives = [
        make_measured("groups-32", 0.05, 20_000, widths=dict.fromkeys(low, "4x32")),
        make_measured("o-8", 0.15, 30_000, widths={**low, f"{block}.o": "8"}),
        make_measured("block-8", 0.2, 400_000, widths=dict.fromkeys(low, "8")),
        make_measured("half-calibration", 0.01, 0, options="--calib-windows 8"),
        make_measured("no-clipping", 0.0002, 0),
        make_measured("symmetric", -0.02, -10_000, options="--symmetric"),
    ]
    given = {
        "run": "sample",
        "model": "m",
        "block": block,
        "flagged": True,
        "bits": 4,
        "group_size": 64,
        "symmetric": False,
        "windows": [0, 2, 5],
        "of_windows": 12,
        "scored_tokens": 765,
        "isolated": (0.22, 0.2, 0.24),
        "uniform": (0.25, 0.24, 0.26),
        "bytes": 300_000,
        "bits_per_weight": 4.5,
        "alternatives": sort_measured(alternatives),
        "refused": [
            Refused(name="groups-128", what="groups of 128", why="128 does not divide 192")
        ],
    }
    return BlockProbe(**{**given, **changes})


def keep_probe(run: RunDirectory, probe: BlockProbe) -> None:
    """Keep a probe as the answer to the plain question of its block."""
    study = ask(run).study(run, probe.block)
    with study.hold():
        study.keep(probe.to_json())


def write_spoiled_run(folder: Path, make_model: Callable[..., Path], text: Path) -> RunDirectory:
    """A run at 3 bits of a model whose block SPOILED has in every weight group of its output
    projection one that is larger than all others. Groups of 128 do not divide its MLP."""
    source = make_model("llama", num_hidden_layers=4, intermediate_size=192)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float16)
    layers = model.model.layers
    # A first block of random weights would do more harm than any cause that is planted after it.
    for quiet in (layers[0].self_attn.o_proj, layers[0].mlp.down_proj):
        quiet.weight.data *= 0.01
    # Alike for all tokens, attention is no cause.
    layers[SPOILED].self_attn.q_proj.weight.data *= 0.05
    weight = layers[SPOILED].self_attn.o_proj.weight.data
    weight *= 2
    grouped = weight.view(len(weight), -1, 64)
    generator = torch.Generator().manual_seed(5)
    outliers = torch.randint(64, (*grouped.shape[:2], 1), generator=generator)
    grouped.scatter_(2, outliers, 1.5 * grouped.abs().amax(2, keepdim=True))
    shutil.copytree(source, folder / "model")
    model.save_pretrained(folder / "model")
    shutil.copyfile(text, folder / "text.txt")
    spec = RunSpec(
        model=str(folder / "model"),
        calib=str(folder / "text.txt"),
        valid=str(folder / "text.txt"),
        bits=3,
        group_size=64,
        seq_len=64,
        windows=8,
        calib_windows=4,
        calib_seq_len=64,
        top_k=1,
        keep_fp16=(f"{WITH_KEPT}.o",),
        verify_units=2,
    )
    return run_pipeline(spec, folder / "run", lambda *event: None)
