"""Write a recipe's model to disk, block by block, in a format that servers load; read it back.

compressed-tensors `pack-quantized` holds 4, 8 and 16 bits side by side and loads in transformers,
vLLM and SGLang; autoawq's GEMM format holds uniform 4 bits. What each server insists on is in
`_quantization_config`: disjoint anchored targets that list the fused names too, and no catch-all.
"""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mixedprec.arithmetic import Quantized
from mixedprec.errors import InputError
from mixedprec.families import Family, UnitKind
from mixedprec.files import FULL, report_full_disk, write_json
from mixedprec.model import CODE, SourceModel
from mixedprec.packing import (
    from_compressed_tensors,
    from_gemm,
    to_compressed_tensors,
    to_gemm,
)
from mixedprec.realise import RealisedBlock, realise
from mixedprec.recipe import Recipe
from mixedprec.safetensors_header import read_header
from mixedprec.scheme import FP16_BITS, Scheme
from mixedprec.searches import load_searches
from mixedprec.serving import Serving, check_serving, describe_served
from mixedprec.untrusted import check_config, check_directory, check_pattern, read_json

# Widths that servers have kernels for, side by side in one checkpoint.
SERVED_WIDTHS = (4, 8)
FORMATS = ("compressed-tensors", "awq")
SHARD_BYTES = 128 * 2**20
COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
QUANTIZED_SUFFIXES = {
    "compressed-tensors": (
        "weight_packed",
        "weight_scale",
        "weight_zero_point",
        "weight_shape",
    ),
    "awq": ("qweight", "qzeros", "scales"),
}


def served_dtype(model: SourceModel, fmt: str) -> torch.dtype:
    """The 16-bit type a checkpoint of this format stores: GEMM knows float16 only."""
    return torch.float16 if fmt == "awq" else model.dtype


def _check_format(fmt: str, family: Family, recipe: Recipe, schemes: dict[int, Scheme]) -> None:
    if fmt not in FORMATS:
        raise InputError(f"unknown format {fmt!r}", f"choose from {', '.join(FORMATS)}")
    widths = {entry.bits for entry in recipe.units}
    if fmt == "awq" and not widths <= {4, FP16_BITS}:
        raise InputError(
            f"autoawq's GEMM format holds 4 and 16 bits, the recipe asks {sorted(widths)}",
            "write it as compressed-tensors",
        )
    if fmt == "awq" and (family.experts or (4 in schemes and schemes[4].symmetric)):
        what = "experts are symmetric" if family.experts else "this run is symmetric"
        raise InputError(
            f"autoawq's GEMM format has zero points, {what}", "write it as compressed-tensors"
        )
    odd = [bits for bits in widths if bits not in (*SERVED_WIDTHS, FP16_BITS)]
    if odd:
        raise InputError(
            f"no server loads {odd[0]}-bit layers in compressed-tensors",
            "measure them, but make checkpoints of 4, 8 and 16 bits",
        )


def _targets(family: Family, recipe: Recipe, kinds: Collection[UnitKind], bits: int) -> list[str]:
    """Anchored patterns of the linears of `kinds` at `bits`, one a kind, fused names included."""
    layers = re.escape(family.blocks.rpartition(".")[2])
    targets = []
    for kind in kinds:
        blocks = [
            entry.unit.split(".")[0]
            for entry in recipe.units
            if entry.bits == bits and entry.unit.split(".")[1] == kind.name
        ]
        if blocks:
            names = kind.pattern or "|".join(
                re.escape(n) for n in dict.fromkeys((*kind.linears, kind.fused))
            )
            targets.append(rf"re:.*\.{layers}\.({'|'.join(blocks)})\.({names})$")
    return targets


def _routers(family: Family) -> list[str]:
    """A pattern for what stays at 16 bits inside the blocks without being in a unit."""
    if family.experts is None:
        return []
    layers = re.escape(family.blocks.rpartition(".")[2])
    gates = "|".join(map(re.escape, family.experts.gates))
    return [rf"re:.*\.{layers}\.\d+\.{family.experts.module}\.({gates})$"]


def _kept_names(family: Family, recipe: Recipe) -> list[str]:
    """The linears that stay at 16 bits, fused names included: not every server's class says which
    linears it fuses."""
    fused = {kind.name: kind.fused for kind in family.units}
    kept = []
    for entry in recipe.units:
        if entry.bits == FP16_BITS:
            block, _, kind = entry.unit.partition(".")
            kept += [*entry.linears, f"{family.blocks}.{block}.{fused[kind]}"]
    return list(dict.fromkeys(kept))


def _quantization_config(
    model: SourceModel, recipe: Recipe, schemes: dict[int, Scheme], fmt: str
) -> dict[str, Any]:
    """The `quantization_config` of config.json."""
    heads = ["lm_head", "embed_out"] if "embed_out.weight" in model.files else ["lm_head"]
    if fmt == "awq":
        kept = _kept_names(model.family, recipe)
        return {
            "quant_method": "awq",
            "bits": 4,
            "group_size": schemes[4].group_size,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": kept or None,
        }
    groups: dict[str, Any] = {}
    kinds: dict[Scheme, list[UnitKind]] = {}
    for bits in sorted({entry.bits for entry in recipe.units} - {FP16_BITS}):
        for kind in model.family.units:
            kinds.setdefault(kind.scheme(schemes[bits]), []).append(kind)
    for scheme, of_scheme in kinds.items():
        targets = _targets(model.family, recipe, of_scheme, scheme.bits)
        if not targets:
            continue
        channel = scheme.group_size == -1
        groups[f"group_{len(groups)}"] = {
            "targets": targets,
            "weights": {
                "num_bits": scheme.bits,
                "type": "int",
                "symmetric": scheme.symmetric,
                "strategy": "channel" if channel else "group",
                "group_size": None if channel else scheme.group_size,
            },
            "format": "pack-quantized",
        }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [
            *heads,
            *_routers(model.family),
            *_targets(model.family, recipe, model.family.units, FP16_BITS),
        ],
    }


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
        path = self._path(len(self.shards))
        with report_full_disk(path):
            save_file(self.pending, path, metadata={"format": "pt"})
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


@contextlib.contextmanager
def _hold_folder(partial: Path, out: Path) -> Iterator[None]:
    """Make the directory `partial` for what will be `out`, without what a killed process left in
    it, and keep it for this process alone; in the end it is gone. InputError where it cannot be
    made, or another process is at it."""
    busy = InputError(
        f"{out} is being written by another process", "wait for it, or choose another"
    )
    try:
        partial.mkdir(parents=True, exist_ok=True)
        held = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InputError(
            f"{out} cannot be made ({error.strerror})", "choose another directory"
        ) from error
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise busy from error
        # Whoever held it until now may have renamed it since it was opened.
        if not partial.exists() or not os.path.samestat(os.stat(partial), os.fstat(held)):
            raise busy
        try:
            for path in partial.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield
        finally:
            if partial.exists() and os.path.samestat(os.stat(partial), os.fstat(held)):
                shutil.rmtree(partial, ignore_errors=True)
    finally:
        os.close(held)


@torch.no_grad()
def write_checkpoint(
    out: Path,
    model: SourceModel,
    recipe: Recipe,
    searches: Path,
    schemes: dict[int, Scheme],
    *,
    fmt: str = "compressed-tensors",
    on_block: Callable[[int], None] = lambda block: None,
) -> Serving:
    """Write the recipe's model to the directory `out`, which appears only when it is whole and no
    server would refuse it or load it wrongly; what they make of it.

    searches: folder of the AWQ searches for every width in the recipe. schemes: bits -> scheme.
    """
    _check_format(fmt, model.family, recipe, schemes)
    dtype = served_dtype(model, fmt)
    partial = out.with_name(f".{out.name}.partial")
    with report_full_disk(out), _hold_folder(partial, out):
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
        config["dtype"] = str(dtype).removeprefix("torch.")
        if not model.trust_remote_code:
            # It names Python files that are not copied; transformers has the architecture.
            config.pop("auto_map", None)
        config["quantization_config"] = _quantization_config(model, recipe, schemes, fmt)
        write_json(partial / "config.json", config)
        serving = examine_serving(partial, model)
        assert not serving.faults, "\n".join(serving.notes)
        code = model.path.glob(CODE) if model.trust_remote_code else ()
        for name in (*COPIED, *(path.name for path in code)):
            if (model.path / name).exists():
                shutil.copyfile(model.path / name, partial / name)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
        return serving


def examine_serving(folder: Path, model: SourceModel) -> Serving:
    """What servers make of the checkpoint in `folder`, of the architecture of `model`, by its
    config.json and its files' headers."""
    config = read_json(folder / "config.json")
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            shapes |= {name: file.get_slice(name).get_shape() for name in file.keys()}
    modules = dict(model.shell.named_modules())
    columns = {name: m.in_features for name, m in modules.items() if isinstance(m, nn.Linear)}
    embeddings = [name for name, m in modules.items() if isinstance(m, nn.Embedding)]
    served = describe_served(
        model.family,
        model.config.model_type,
        model.blocks,
        columns,
        embeddings=tuple(embeddings),
        modules=tuple(name for name in modules if name not in {*columns, *embeddings}),
    )
    return check_serving(config.get("quantization_config") or {}, shapes, served)


def realise_block(
    model: SourceModel, recipe: Recipe, searches: Path, number: int, dtype: torch.dtype
) -> RealisedBlock:
    """What the recipe's model stores of one block (see `realise`)."""
    widths = recipe.block_widths(model.prefix(number))
    quantized = tuple(sorted(set(widths.values()) - {FP16_BITS}))
    loaded = load_searches(searches, number, quantized)
    return realise(model.read_block(number), loaded, widths, dtype)


def checkpoint_bytes(folder: Path) -> int:
    """Bytes of all tensors of a checkpoint; the files' headers, which no server keeps, left out."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            header = int.from_bytes(file.read(8), "little")
        total += path.stat().st_size - 8 - header
    return total


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint on disk, read tensor by tensor. `files`: tensor name -> file."""

    folder: Path
    quantization: dict[str, Any]
    files: dict[str, Path]

    def tensor(self, name: str) -> Tensor:
        """A tensor as stored."""
        with safe_open(self.files[name], framework="pt") as file:
            return file.get_tensor(name).clone()

    def linear(self, name: str) -> Quantized | Tensor | None:
        """A linear of the blocks: packed ones as `Quantized`, with the scheme that config.json
        gives them by its own rules; 16-bit ones as their weight; None where there is none."""
        fmt = self.quantization["quant_method"]
        suffixes = QUANTIZED_SUFFIXES[fmt]
        if f"{name}.{suffixes[0]}" in self.files:
            parts = [part for part in suffixes if f"{name}.{part}" in self.files]
            tensors = {part: self.tensor(f"{name}.{part}") for part in parts}
            decode = from_gemm if fmt == "awq" else from_compressed_tensors
            try:
                return decode(tensors, _scheme_on_disk(self.quantization, name))
            except ValueError as error:
                raise InputError(
                    f"{name} in {self.folder} cannot be unpacked ({error})",
                    "write the checkpoint again from the run",
                ) from error
        full = f"{name}.weight"
        return self.tensor(full) if full in self.files else None


def open_checkpoint(folder: Path) -> StoredCheckpoint:
    """Index a quantized checkpoint by its config.json and its files' headers. InputError where it
    is damaged, or holds what no checkpoint of good faith does (`untrusted.py`)."""
    again = "write it again from the run"
    check_directory(folder)
    source = folder / "config.json"
    try:
        config = read_json(source)
        check_config(source, config)
        quantization = config["quantization_config"]
        check_quantization(quantization)
    except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{source} is damaged ({error})", again) from error
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            files |= dict.fromkeys(read_header(path).tensors, path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is truncated or damaged ({error})", again) from error
    return StoredCheckpoint(folder, quantization, files)


def check_quantization(quantization: Any) -> None:
    """Raise AttributeError, LookupError, TypeError or ValueError unless `quantization` is what a
    checkpoint of ours says of itself: what `StoredCheckpoint.linear` needs to know."""
    method = quantization["quant_method"]
    if method not in QUANTIZED_SUFFIXES:
        raise ValueError(f"the quantization method {method!r} is not ours")
    groups = [quantization]
    if method == "compressed-tensors":
        groups = [group["weights"] for group in quantization["config_groups"].values()]
        for group in quantization["config_groups"].values():
            for target in group["targets"]:
                check_pattern(target.removeprefix("re:"))
    for weights in groups:
        bits = weights["bits" if method == "awq" else "num_bits"]
        Scheme(bits, weights["group_size"] or -1, bool(weights.get("symmetric", False)))


def _scheme_on_disk(quantization: dict[str, Any], linear: str) -> Scheme:
    """The scheme that the checkpoint's own config gives to a linear."""
    if quantization["quant_method"] == "awq":
        return Scheme(quantization["bits"], quantization["group_size"], False)
    found = [
        group["weights"]
        for group in quantization["config_groups"].values()
        if any(re.match(target.removeprefix("re:"), linear) for target in group["targets"])
    ]
    if len(found) != 1:
        raise ValueError(f"{len(found)} config groups match {linear}; exactly one must")
    weights = found[0]
    return Scheme(weights["num_bits"], weights["group_size"] or -1, weights["symmetric"])
