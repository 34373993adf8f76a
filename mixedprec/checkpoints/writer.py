"""Write a recipe's model to disk, block by block, in a format that servers load.

compressed-tensors `pack-quantized` holds 4, 8 and 16 bits side by side and loads in transformers,
vLLM and SGLang; autoawq's GEMM format holds uniform 4 bits. Before a checkpoint appears it is
checked that servers will read it as it was meant (`serving.py`).
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from awqscope.mixedprec.awq.choices import load_searches
from awqscope.mixedprec.awq.realise import RealisedBlock, realise
from awqscope.mixedprec.checkpoints.config import check_format, quantization_config
from awqscope.mixedprec.checkpoints.packing import to_compressed_tensors, to_gemm
from awqscope.mixedprec.checkpoints.served_files import check_files
from awqscope.mixedprec.checkpoints.serving import (
    Served,
    Serving,
    Shapes,
    check_serving,
    describe_served,
)
from awqscope.mixedprec.checkpoints.tgi import check_tgi
from awqscope.mixedprec.files.atomic import (
    claim_memory,
    replace_file,
    report_full_disk,
    write_json,
)
from awqscope.mixedprec.files.folders import copy_companions, hold_folder
from awqscope.mixedprec.files.untrusted import read_json
from awqscope.mixedprec.models.catalogue import Catalogue, open_catalogue
from awqscope.mixedprec.models.served import name_dtype
from awqscope.mixedprec.models.source import CODE, SourceModel
from awqscope.mixedprec.models.weight_files import NAMED
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import Scheme, Width, list_quantized

SHARD_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Written:
    """What was written. serving: what servers make of it. bytes: of all its tensors."""

    serving: Serving
    bytes: int


def served_dtype(model: SourceModel, fmt: str) -> torch.dtype:
    """The 16-bit type a checkpoint of this format stores: GEMM knows float16 only."""
    return torch.float16 if fmt == "awq" else model.dtype


def block_tensors(prefix: str, block: RealisedBlock, fmt: str) -> dict[str, Tensor]:
    """Everything a served block stores, by full name."""
    encode = to_gemm if fmt == "awq" else to_compressed_tensors
    tensors = {f"{prefix}.{name}": value for name, value in block.others.items()}
    for name, linear in block.linears.items():
        if linear.quantized is None:
            assert linear.weight is not None
            tensors[f"{prefix}.{name}.weight"] = linear.weight
        else:
            for suffix, value in encode(linear.quantized).items():
                tensors[f"{prefix}.{name}.{suffix}"] = value
        if linear.bias is not None:
            tensors[f"{prefix}.{name}.bias"] = linear.bias
    return tensors


class _ShardWriter:
    """Collects tensors and writes a safetensors file before there are more than SHARD_BYTES of
    them, larger tensors alone."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.pending: dict[str, Tensor] = {}
        self.pending_bytes = 0
        self.shards: list[list[str]] = []
        self.total = 0

    def add(self, tensors: dict[str, Tensor]) -> None:
        for name, value in tensors.items():
            if self.pending_bytes + value.nbytes > SHARD_BYTES:
                self.flush()
            self.pending[name] = value.contiguous()
            self.pending_bytes += value.nbytes

    def _path(self, number: int) -> Path:
        return self.folder / f"shard-{number}.safetensors"

    def flush(self) -> None:
        if not self.pending:
            return
        with replace_file(self._path(len(self.shards))) as temporary:
            claim_memory()
            save_file(self.pending, temporary, metadata={"format": "pt"})
        self.shards.append(list(self.pending))
        self.total += self.pending_bytes
        self.pending, self.pending_bytes = {}, 0

    def finish(self) -> None:
        """Give the files their final names, with an index where there are several."""
        self.flush()
        count = len(self.shards)
        if count == 1:
            self._path(0).rename(self.folder / "model.safetensors")
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self.shards):
            final = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
            self._path(number).rename(self.folder / final)
            weight_map |= dict.fromkeys(names, final)
        write_json(
            self.folder / "model.safetensors.index.json",
            {"metadata": {"total_size": self.total}, "weight_map": weight_map},
        )


@torch.no_grad()
def write_checkpoint(
    out: Path,
    model: SourceModel,
    recipe: Recipe,
    searches: Path,
    schemes: Mapping[Width, Scheme],
    *,
    fmt: str = "compressed-tensors",
    on_block: Callable[[int], None] = lambda block: None,
) -> Written:
    """Write the recipe's model to the directory `out`, which appears only when it is whole and no
    server would refuse it or load it wrongly.

    searches: folder of the AWQ searches for every width in the recipe. schemes: by width.
    """
    check_format(fmt, model.family, recipe, schemes)
    dtype = served_dtype(model, fmt)
    partial = out.with_name(f".{out.name}.partial")
    with report_full_disk(out), hold_folder(partial, out):
        writer = _ShardWriter(partial)
        for name in model.other_tensors():
            writer.add(model.read([name], dtype))
        for number in range(model.blocks):
            realised = realise_block(model, recipe, searches, number, dtype)
            writer.add(block_tensors(model.prefix(number), realised, fmt))
            on_block(number + 1)
        writer.finish()
        config = read_json(model.path / "config.json")
        config.pop("torch_dtype", None)
        # The model's files are named otherwise.
        config.pop(NAMED, None)
        config["dtype"] = name_dtype(dtype)
        if not model.trust_remote_code:
            # It names Python files that are not copied; transformers has the architecture.
            config.pop("auto_map", None)
        config["quantization_config"] = quantization_config(model, recipe, schemes, fmt)
        write_json(partial / "config.json", config)
        catalogue = open_catalogue(partial)
        serving = examine_serving(catalogue, model)
        if serving.faults:
            raise RuntimeError("\n".join(serving.notes))
        copy_companions(model.path, partial, CODE if model.trust_remote_code else None)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
        return Written(serving, catalogue.bytes)


def examine_serving(catalogue: Catalogue, model: SourceModel) -> Serving:
    """What vLLM, SGLang and transformers make of a checkpoint of the architecture of `model`, by
    its config.json and its catalogue."""
    serving = check_serving(*_read_stored(catalogue), _describe_architecture(model))
    taken = check_files(
        catalogue.read,
        catalogue.names,
        cache(catalogue.list_indexed),
        cache(catalogue.list_tensors),
    )
    others = tuple(found for found in taken if found.consumer in serving.consumers)
    return replace(serving, remarks=(*serving.remarks, *others))


def examine_in_tgi(catalogue: Catalogue, model: SourceModel) -> Serving:
    """What TGI makes of a checkpoint of the architecture of `model`, by its config.json and its
    catalogue."""
    return check_tgi(*_read_stored(catalogue), _describe_architecture(model))


def _read_stored(catalogue: Catalogue) -> tuple[Mapping[str, Any], Shapes]:
    """The `quantization_config` of a checkpoint, and the shape of each of its tensors."""
    config = read_json(catalogue.folder / "config.json")
    shapes = {name: stored.shape for name, stored in catalogue.tensors.items()}
    return config.get("quantization_config") or {}, shapes


def _describe_architecture(model: SourceModel) -> Served:
    modules = dict(model.shell.named_modules())
    columns = {name: m.in_features for name, m in modules.items() if isinstance(m, nn.Linear)}
    embeddings = [name for name, m in modules.items() if isinstance(m, nn.Embedding)]
    return describe_served(
        model.family,
        model.config.model_type,
        model.blocks,
        columns,
        embeddings=tuple(embeddings),
        modules=tuple(name for name in modules if name not in {*columns, *embeddings}),
    )


def realise_block(
    model: SourceModel, recipe: Recipe, searches: Path, number: int, dtype: torch.dtype
) -> RealisedBlock:
    """One block as the recipe's model stores it, by `realise`."""
    widths = recipe.block_widths(model.prefix(number))
    loaded = load_searches(searches, number, list_quantized(widths.values()))
    return realise(model.read_block(number), loaded, widths, dtype)
