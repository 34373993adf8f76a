"""What a run itself holds of its linears' weights, where neither its model nor its checkpoint is
there: the scales and clips of its searches. Read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.sealed import load_sealed
from awqscope.mixedprec.files.untrusted import parse_json

CLIP = "clip."


@dataclass(frozen=True)
class SearchedLinear:
    """What AWQ chose for a linear at a width. scales [K]: of its input channels, and the ratio that
    they are of; None where it is not scaled. limits [N, G]: the largest weight that is kept of each
    group, once scaled; None where nothing is clipped."""

    scales: np.ndarray | None
    ratio: float | None
    limits: np.ndarray | None


def read_searched(run: RunDirectory, block: int, bits: int) -> Mapping[str, SearchedLinear]:
    """Linear -> what the search of a block at a width chose; empty for a run that holds none of it.
    InputError for one that is damaged."""
    path = run.searches / f"block-{block:04d}.w{bits}.safetensors"
    if not path.exists():
        return {}
    try:
        arrays, metadata = load_sealed(path)
        groups = parse_json(metadata["groups"])
        chosen = {
            linear: (arrays[f"scale.{number}"], float(entry["ratio"]))
            for number, entry in enumerate(groups)
            for linear in entry["linears"]
        }
    except (LookupError, OSError, TypeError, ValueError) as error:
        raise InputError(
            f"the AWQ search {path} is damaged ({error})", "copy the whole run again"
        ) from error
    clipped = [name.removeprefix(CLIP) for name in arrays if name.startswith(CLIP)]
    found = {}
    for linear in dict.fromkeys([*chosen, *clipped]):
        scales, ratio = chosen.get(linear, (None, None))
        found[linear] = SearchedLinear(scales, ratio, arrays.get(f"{CLIP}{linear}"))
    return found
