"""Which models come from GGUF files, and what is known of their weights."""

from collections import Counter
from pathlib import Path

from awqscope.mixedprec.files.untrusted import read_json

SUFFIX = ".gguf"
ORIGIN = "origin.json"
# Types of tensors that hold weights as they were trained.
UNQUANTIZED = frozenset({"F64", "F32", "F16", "BF16"})


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
