"""What the AWQ search of a block chooses, and the files that it is kept in: one safetensors a block
and width, `block-0003.w4.safetensors`, and `g64/block-0003.w4.safetensors` for groups of 64 where
those are not the run's own."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.family import ScaleGroup
from awqscope.mixedprec.files.atomic import replace_file
from awqscope.mixedprec.files.sealed import load_sealed, save_sealed
from awqscope.mixedprec.files.untrusted import parse_json
from awqscope.mixedprec.models.streams import CPU
from awqscope.mixedprec.scheme import Grouped, Scheme, Width, bits_of


@dataclass(frozen=True)
class ScaleChoice:
    """The search's answer for a scale group: `ratio` (0 to 0.95) and its scales [K], float32."""

    group: ScaleGroup
    ratio: float
    scales: Tensor


@dataclass(frozen=True)
class BlockSearch:
    """All choices for one block at one scheme.

    clips: linear -> largest weight kept, float32 [N, G], once all of this search's scales are in
    the weight (those of its inputs, and those its rows take for the linear after it). Linears
    without an entry are not clipped. symmetric: the linears that are quantized without zero points
    whatever the scheme. uncalibrated: experts that saw too few tokens to be searched.
    """

    scheme: Scheme
    scales: tuple[ScaleChoice, ...]
    clips: dict[str, Tensor]
    symmetric: frozenset[str] = frozenset()
    uncalibrated: tuple[str, ...] = ()

    def scheme_of(self, linear: str) -> Scheme:
        """The scheme of one of the block's linears."""
        return replace(self.scheme, symmetric=True) if linear in self.symmetric else self.scheme

    def choice_for(self, linear: str) -> ScaleChoice | None:
        """The scale choice of the group `linear` is in, if its input is scaled at all."""
        return next((c for c in self.scales if linear in c.group.linears), None)

    def to(self, device: torch.device) -> "BlockSearch":
        """The same search with its tensors on `device`."""
        choices = tuple(replace(c, scales=c.scales.to(device)) for c in self.scales)
        clips = {name: clip.to(device) for name, clip in self.clips.items()}
        return replace(self, scales=choices, clips=clips)

    def row_scales(self, linear: str, rows: int) -> Tensor:
        """What the rows of `linear` are divided by for the linear after it, [rows]."""
        found = [*(choice.scales for choice in self.scales), *self.clips.values()]
        scales = torch.ones(rows, device=found[0].device if found else CPU)
        for choice in self.scales:
            if choice.group.previous == linear:
                scales[-len(choice.scales) :] = choice.scales
        return scales


def search_folder(folder: Path, width: Width) -> Path:
    """Where the searches at a width are kept, of a run whose own are in `folder`."""
    return folder / f"g{width.group_size}" if isinstance(width, Grouped) else folder


def search_path(folder: Path, block: int, width: Width) -> Path:
    """Where the search of `block` at a width is kept, of a run whose own are in `folder`."""
    return search_folder(folder, width) / f"block-{block:04d}.w{bits_of(width)}.safetensors"


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
        save_sealed(temporary, {key: t.numpy() for key, t in tensors.items()}, metadata)


def load_search(path: Path) -> BlockSearch:
    """Read what `save_search` wrote. InputError for a file that is missing or damaged."""
    try:
        arrays, metadata = load_sealed(path)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        choices = []
        for number, entry in enumerate(parse_json(metadata["groups"])):
            ratio = entry.pop("ratio")
            for key in ("linears", "compensated"):
                entry[key] = tuple(entry.get(key, ()))
            group = ScaleGroup(**entry)
            choices.append(ScaleChoice(group, ratio, tensors[f"scale.{number}"]))
        scheme = Scheme(**parse_json(metadata["scheme"]))
        symmetric = frozenset(parse_json(metadata.get("symmetric", "[]")))
        uncalibrated = tuple(parse_json(metadata.get("uncalibrated", "[]")))
    except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        raise InputError(
            f"the AWQ search {path} is missing or damaged ({error})",
            "go on with the command that began the run, or copy the whole run again",
        ) from error
    clips = {
        name.removeprefix("clip."): tensor
        for name, tensor in tensors.items()
        if name.startswith("clip.")
    }
    return BlockSearch(scheme, tuple(choices), clips, symmetric, uncalibrated)


def load_searches(folder: Path, block: int, widths: tuple[Width, ...]) -> dict[Width, BlockSearch]:
    """The searches of one block at each of `widths`. InputError where one is missing or damaged."""
    return {width: load_search(search_path(folder, block, width)) for width in widths}


def is_complete(path: Path) -> bool:
    """Whether `path` holds a readable search (a file damaged from outside is searched again)."""
    try:
        load_search(path)
    except InputError:
        return False
    return True


def read_uncalibrated(path: Path) -> tuple[str, ...]:
    """The experts that the search at `path` found too few tokens for, by name inside the block."""
    return load_search(path).uncalibrated
