"""What a run itself holds of its linears' weights, where neither its model nor its checkpoint is
there: the scales and clips of its searches. Read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.weights.answer import ChannelSize
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.sealed import load_sealed
from awqscope.mixedprec.files.untrusted import parse_json
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import FP16_BITS

CLIP = "clip."


@dataclass(frozen=True)
class SearchedLinear:
    """What AWQ chose for a linear at a width. scales [K]: of its input channels, and the ratio that
    they are of; None where it is not scaled. limits [N, G]: the largest weight that is kept of each
    group, once scaled; None where nothing is clipped."""

    scales: np.ndarray | None
    ratio: float | None
    limits: np.ndarray | None

    def list_sizes(self, largest: np.ndarray | None) -> list[ChannelSize]:
        """The input channels of a linear that is scaled. largest [K]: their largest activations,
        left out where they are of other channels than flow in here."""
        assert self.scales is not None
        fits = largest is not None and len(largest) == len(self.scales)
        return [
            ChannelSize(
                channel=channel,
                scale=float(scale),
                activation=float(largest[channel]) if fits and largest is not None else None,
                weight=None,
            )
            for channel, scale in enumerate(self.scales)
        ]


def find_width(recipe: Recipe | None, block: int, linear: str, low: int) -> int:
    """The width of a linear in a run's recipe; `low` before there is one, and where it is kept at
    16 bits or has groups of its own."""
    widths = {} if recipe is None else recipe.linear_widths()
    tail = f".{block}.{linear}"
    found = next((width for name, width in widths.items() if name.endswith(tail)), low)
    return found if isinstance(found, int) and found != FP16_BITS else low


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
