"""A look at a block's weights, made by hand."""

from pathlib import Path
from typing import Any

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.weights.answer import BlockWeights
from awqscope.diagnose.studies.weights.look import study_of


def make_group(row: int, group: int, error: float, **changes: Any) -> dict[str, Any]:
    """A group of four channels."""
    channels = list(range(4 * group, 4 * group + 4))
    return {
        "row": row,
        "group": group,
        "role": None,
        "heads": [],
        "serves": [],
        "error": error,
        "reach": 0.5,
        "cut": 0.1,
        "scale": 0.01,
        "zero": 7,
        "channels": channels,
        "reference": [0.1, -0.2, 0.05, 0.0],
        "stored": [0.11, -0.19, 0.05, 0.0],
        "codes": [15, 0, 9, 7],
        **changes,
    }


def make_linear(linear: str, unit: str, error: float, **changes: Any) -> dict[str, Any]:
    """A linear of 8 outputs and 8 inputs at 4 bits in groups of 4."""
    return {
        "linear": linear,
        "unit": unit,
        "bits": 4,
        "rows": 8,
        "columns": 8,
        "group": 4,
        "symmetric": False,
        "ratio": 0.45,
        "tensors": [
            {"name": "weight_packed", "dtype": "I32", "shape": [8, 1], "bytes": 32},
            {"name": "weight_scale", "dtype": "F16", "shape": [8, 2], "bytes": 32},
        ],
        "bytes": 64,
        "bits_per_weight": 8.0,
        "range": [-0.3, 0.25],
        "rms": 0.1,
        "relative_error": error,
        "sqnr": 20.0,
        "channels": [
            {"channel": n, "scale": 0.5 + n / 4, "activation": 3.0 + n, "weight": 0.02}
            for n in range(8)
        ],
        "clipping": {"groups": 16, "clipped": 4, "weights": 0.125, "steps": [12, 3, 0, 1]},
        "codes": [4] * 15 + [0],
        "zeros": [0] * 7 + [16] + [0] * 8,
        "unused": 1,
        "used_in_group": 3.5,
        "saturated": 0.0625,
        "groups": [make_group(3, 1, 0.31), make_group(5, 0, 0.2)],
        **changes,
    }


def make_weights(**changes: Any) -> dict[str, Any]:
    """The whole of what `awqscope weights --json` prints, of a block with four query heads that
    share two key-value heads."""
    of_head = {"role": "v", "heads": [1], "serves": [2, 3]}
    return {
        "block": 5,
        "made_of": "checkpoint",
        "recipe": "flagged",
        "heads": 4,
        "kv_heads": 2,
        "linears": [
            make_linear(
                "self_attn.v_proj",
                "qkv",
                0.1,
                groups=[
                    make_group(row, group, error, **of_head)
                    for row, group, error in ((3, 1, 0.31), (5, 0, 0.2), (4, 1, 0.1))
                ],
            ),
            make_linear("mlp.down_proj", "down", 0.12),
        ],
        "brief": [],
        **changes,
    }


def make_answer(**changes: Any) -> BlockWeights:
    """The same, typed."""
    return BlockWeights.model_validate(make_weights(**changes))


def keep_weights(path: Path, answer: dict[str, Any] | None = None) -> None:
    """Keep a look at block 5 with a run, as it is stored there now."""
    study = study_of(RunDirectory(path), 5)
    with study.hold():
        study.keep(make_weights() if answer is None else answer)
