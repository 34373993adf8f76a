"""Which models come from GGUF files, and what is known of their weights."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awqscope.mixedprec.files.untrusted import read_json
from awqscope.mixedprec.scheme import FP16_BITS

SUFFIX = ".gguf"
ORIGIN = "origin.json"
# Types of tensors that hold weights as they were trained.
UNQUANTIZED = frozenset({"F64", "F32", "F16", "BF16"})

# Bits of a weight of a type, by what stands in its name: Q4_K is of 4, IQ2_XXS of 2.
WIDTH = re.compile(r"(?:IQ|TQ|Q|MXFP|NVFP)(\d)")


@dataclass(frozen=True)
class Origin:
    """Where an unpacked model comes from. file: name of the GGUF file. sha256: of it. bytes: of all
    its tensors. stored: type and bytes there of each tensor, by transformers' name. stated: the
    entries of a configuration that it states. scaled: what it has that scales rotary embeddings and
    is not in the configuration."""

    file: str
    sha256: str
    bytes: int
    stored: Mapping[str, tuple[str, int]]
    stated: Mapping[str, Any]
    scaled: tuple[str, ...]


def read_whole_origin(folder: Path) -> Origin:
    """Where the model of a directory that `unpack_gguf` made comes from."""
    found = read_json(folder / ORIGIN)
    return Origin(
        found["file"],
        found["sha256"],
        found["bytes"],
        {name: (kind, size) for name, (kind, size) in found["stored"].items()},
        found["stated"],
        tuple(found["scaled"]),
    )


def find_width(kind: str) -> int:
    """Bits of a weight that is stored as a type, scales left out; 16 where it is as trained."""
    found = WIDTH.match(kind)
    return int(found[1]) if found else FP16_BITS


def is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file's, by its name."""
    return path.suffix == SUFFIX and path.is_file()


def read_origin(folder: Path) -> str | None:
    """How the weights of a model directory were quantized before it was made, in words; None where
    nothing is known of that."""
    try:
        found = read_json(folder / ORIGIN)
        kinds = Counter({str(name): int(count) for name, count in found["tensors"].items()})
    except (OSError, LookupError, AttributeError, TypeError, ValueError):
        return None
    packed = [name for name, _ in kinds.most_common() if name not in UNQUANTIZED]
    return f"GGUF {', '.join(packed)}" if packed else None
