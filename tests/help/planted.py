"""Runs of tiny models with something wrong in one block, as far as studies need them: searched on
their own texts, with a record of these."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from awqscope.diagnose.entries.stages import Stage
from awqscope.diagnose.inputs.load import describe, load_inputs
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.trials.finished import OpenedRun, open_run
from awqscope.mixedprec.awq.choices import load_search, save_search, search_path
from awqscope.mixedprec.awq.search import search_model
from examples.plant_fault import mixing_matrix

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """Of a model's heads. size: channels of one; served: query heads that share keys and values."""

    size: int
    served: int


def write_studied_run(
    path: Path, model: Path, calib: Path, valid: Path, more: Sequence[Path] = (), **asked: Any
) -> OpenedRun:
    """A run of `model` after search and sweep. more: further validation texts; asked: other options
    of the run."""
    options: Mapping[str, Any] = {
        "bits": 4,
        "group_size": 64,
        "seq_len": 64,
        "windows": 12,
        "calib_seq_len": 64,
        "calib_windows": 12,
        **asked,
    }
    texts = tuple(map(str, (valid, *more)))
    spec = RunSpec(model=str(model), calib=str(calib), valid=texts, **options)
    inputs, run = load_inputs(spec), RunDirectory(path)
    stages = {"search": Stage(state="done"), "sweep": Stage(state="done")}
    run.create(describe(spec, inputs).changed(stages=stages))
    schemes = list(spec.schemes.values())
    search_model(inputs.model, inputs.search_windows, schemes, run.searches, exact=False)
    return open_run(run, None)


def change_model(source: Path, out: Path, change: Callable[[Tensors], None]) -> Path:
    """A copy of a model with its tensors changed in place."""
    shutil.copytree(source, out)
    file = out / "model.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = {name: tensor.float() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file({n: t.half().contiguous() for n, t in tensors.items()}, file, metadata=metadata)
    return out


def mix_head(tensors: Tensors, block: int, head: int, condition: float, sizes: Sizes) -> None:
    """Mix a key-value head's values by an ill-conditioned matrix and undo it in the output
    projection: the model computes what it did, and AWQ's scales cannot mend it."""
    generator = torch.Generator().manual_seed(11)
    mixing = mixing_matrix(sizes.size, condition, generator)
    prefix = f"model.layers.{block}.self_attn"
    v, o = (tensors[f"{prefix}.{name}.weight"] for name in ("v_proj", "o_proj"))
    rows = slice(head * sizes.size, (head + 1) * sizes.size)
    v[rows] = (mixing @ v[rows].double()).float()
    for query in range(head * sizes.served, (head + 1) * sizes.served):
        columns = slice(query * sizes.size, (query + 1) * sizes.size)
        o[:, columns] = (o[:, columns].double() @ torch.linalg.inv(mixing)).float()


def raise_channel(tensors: Tensors, block: int, row: int, times: float, sizes: Sizes) -> int:
    """Make one row of the values `times` as large and what reads it in the first query head as much
    smaller, so that rounding drops it: with shared key-value heads no scale is between. Gives the
    input channel of the output projection that this is."""
    prefix = f"model.layers.{block}.self_attn"
    tensors[f"{prefix}.v_proj.weight"][row] *= times
    head, place = divmod(row, sizes.size)
    columns = [(head * sizes.served + n) * sizes.size + place for n in range(sizes.served)]
    o = tensors[f"{prefix}.o_proj.weight"]
    o[:, columns[0]] *= 4 / times
    # Weights of nothing are rounded to nothing.
    o[:, columns[1:]] = 0
    return columns[0]


def tighten_clip(opened: OpenedRun, block: int, linear: str, times: float) -> None:
    """Make the clips of a linear smaller in the run's search."""
    path = search_path(opened.run.searches, block, opened.spec.bits)
    search = load_search(path)
    save_search(path, replace(search, clips={**search.clips, linear: search.clips[linear] * times}))
