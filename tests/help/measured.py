"""A run that has got as far as studies need, of a tiny model, made in a second."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from awqscope.diagnose.inputs.load import describe, load_inputs
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.runs.tables import BLOCKS
from awqscope.mixedprec.awq.search import search_model
from tests.help.searched import DONE

LOSSES = ("delta_nll", "delta_ppl", "kl")


def write_measured_run(path: Path, model_path: Path, text: Path, **options: object) -> RunDirectory:
    """A run of `model_path` after its search and a sweep that found block 1 flagged."""
    asked = {"group_size": 64, "seq_len": 64, "windows": 4, "calib_windows": 4, "calib_seq_len": 64}
    spec = RunSpec(model=str(model_path), calib=str(text), valid=str(text), **(asked | options))
    inputs, run = load_inputs(spec), RunDirectory(path)
    record = describe(spec, inputs)
    run.create(record.changed(stages={"search": DONE, "sweep": DONE}))
    search_model(inputs.model, inputs.search_windows[:1], [*spec.schemes.values()], run.searches)
    rows = []
    for block in range(inputs.model.blocks):
        for view in ("isolated", "cumulative", "restored"):
            kl = 0.4 if block == 1 else 0.02
            found = dict.fromkeys(LOSSES, kl)
            found |= {f"{name}{end}": kl for name in LOSSES for end in ("_low", "_high")}
            judged = {"flagged": block == 1, "z": 0.0, "reason": "planted", "windows": 4}
            rows.append({"block": block, "view": view, **found, "top1_agreement": 0.9, **judged})
    run.write_table("blocks", rows, BLOCKS)
    return run


def copy_changed(source: Path, out: Path, change: Callable[[torch.nn.Module], None]) -> Path:
    """A copy of a model's directory whose parameters were changed in place."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    with torch.no_grad():
        change(model)
    model.to(torch.float16).save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (out / name).write_bytes((source / name).read_bytes())
    return out
