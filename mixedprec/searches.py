"""Search results on disk: one safetensors a block and width, `block-0003.w4.safetensors`."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mixedprec.family import ScaleGroup
from mixedprec.files import replace_file
from mixedprec.scheme import Scheme
from mixedprec.search import BlockSearch, ScaleChoice


def search_path(folder: Path, block: int, bits: int) -> Path:
    """Where the search of `block` at `bits` is kept."""
    return folder / f"block-{block:04d}.w{bits}.safetensors"


def save_search(path: Path, search: BlockSearch) -> None:
    """Write a search: tensors `scale.N` (one a scale group) and `clip.LINEAR`; the rest is JSON."""
    tensors: dict[str, torch.Tensor] = {
        f"scale.{number}": choice.scales.contiguous() for number, choice in enumerate(search.scales)
    }
    tensors |= {f"clip.{name}": clip.contiguous() for name, clip in search.clips.items()}
    groups = [{**asdict(choice.group), "ratio": choice.ratio} for choice in search.scales]
    metadata = {"scheme": json.dumps(asdict(search.scheme)), "groups": json.dumps(groups)}
    if search.symmetric:
        metadata["symmetric"] = json.dumps(sorted(search.symmetric))
    if search.uncalibrated:
        metadata["uncalibrated"] = json.dumps(search.uncalibrated)
    with replace_file(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_search(path: Path) -> BlockSearch:
    """Read what `save_search` wrote. A damaged file raises SafetensorError."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        choices = []
        for number, entry in enumerate(json.loads(metadata["groups"])):
            ratio = entry.pop("ratio")
            for key in ("linears", "compensated"):
                entry[key] = tuple(entry.get(key, ()))
            group = ScaleGroup(**entry)
            choices.append(ScaleChoice(group, ratio, file.get_tensor(f"scale.{number}").clone()))
        clips = {
            name.removeprefix("clip."): file.get_tensor(name).clone()
            for name in file.keys()
            if name.startswith("clip.")
        }
    return BlockSearch(
        Scheme(**json.loads(metadata["scheme"])),
        tuple(choices),
        clips,
        frozenset(json.loads(metadata.get("symmetric", "[]"))),
        tuple(json.loads(metadata.get("uncalibrated", "[]"))),
    )


def load_searches(folder: Path, block: int, widths: tuple[int, ...]) -> dict[int, BlockSearch]:
    """The searches of one block at each of `widths`."""
    return {bits: load_search(search_path(folder, block, bits)) for bits in widths}


def is_complete(path: Path) -> bool:
    """Whether `path` holds a readable search (a file damaged from outside is searched again)."""
    try:
        load_search(path)
    except (FileNotFoundError, SafetensorError, KeyError, ValueError):
        return False
    return True


def read_uncalibrated(path: Path) -> tuple[str, ...]:
    """The experts that the search at `path` found too few tokens for, by name inside the block."""
    with safe_open(path, framework="pt") as file:
        return tuple(json.loads(file.metadata().get("uncalibrated", "[]")))
