"""An answer to why a block is hurt, made by hand."""

from pathlib import Path
from typing import Any

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.causes.answer import Causes, Finding
from awqscope.diagnose.studies.causes.find import study_of


def split(rounding: float, scale: float, clip: float) -> dict[str, Any]:
    total = rounding + scale + clip
    steps = {"rounding": rounding, "scale": scale, "clip": clip, "total": total}
    return {name: [value, value - 0.001, value + 0.001] for name, value in steps.items()}


def make_head(role: str, head: int, serves: list[int]) -> dict[str, Any]:
    steps = {"rounding": 0.6, "scale": -0.1, "clip": 0.0}
    return {
        "role": role,
        "head": head,
        "serves": serves,
        "error": 0.5,
        **steps,
        "arrived": 0.1 * (head + 1),
        "condition": 40.0,
    }


def make_channel(channel: int) -> dict[str, Any]:
    return {
        "channel": channel,
        "activation": 0.5 + channel,
        "largest": 3.0 + channel,
        "calibrated": 0.6,
        "weight": 0.02,
        "scale": 1.5,
        "clipped": 0.01,
        "group": 0,
        "error": 0.5 / (channel + 1),
    }


def make_linear(linear: str, unit: str, share: float, **changes: Any) -> dict[str, Any]:
    return {
        "linear": linear,
        "unit": unit,
        "bits": 4,
        "kl": [share * 0.05, share * 0.04, share * 0.06],
        "share": [share, share - 0.05, share + 0.05],
        "arrived": share,
        "split": split(0.02, -0.008, -0.002),
        "calibrated": split(0.019, -0.009, -0.002),
        "by_text": [],
        "clip_alone": 0.0004,
        "heads": [],
        "channels": [make_channel(channel) for channel in range(3)],
        "channel_count": 3,
        "carriers": [],
        "tokens": [],
        **changes,
    }


def make_carrier(position: int, text: str, kind: str) -> dict[str, Any]:
    return {
        "channel": 9,
        "size": 412.0 - position,
        "times": 120.0,
        "window": 3,
        "position": position,
        "text": text,
        "source": "valid.txt",
        "kind": kind,
    }


def make_answer(**changes: Any) -> dict[str, Any]:
    """The whole of what `awqscope why --json` prints, of a block with four query heads that share
    two key-value heads."""
    down = make_linear(
        "mlp.down_proj",
        "down",
        0.7,
        carriers=[make_carrier(0, "The", "first"), make_carrier(7, "\n", "delimiter")],
        tokens=[
            {"kind": "first", "tokens": 0.016, "error": 0.8},
            {"kind": "delimiter", "tokens": 0.1, "error": 0.05},
            {"kind": "word", "tokens": 0.884, "error": 0.15},
        ],
    )
    v = make_linear(
        "self_attn.v_proj",
        "qkv",
        0.2,
        heads=[make_head("v", 0, [0, 1]), make_head("v", 1, [2, 3])],
    )
    points = (
        ("self_attn.v_proj", "out", "qkv", 0.005),
        ("post_attention_layernorm", "in", "residual", 0.0002),
        ("mlp.down_proj", "in", "down", 0.04),
        ("", "out", "output", 0.001),
    )
    return {
        "block": 5,
        "bits": 4,
        "windows": [0, 3, 7],
        "seq_len": 64,
        "texts": ["valid.txt"],
        "calibration": "calib.txt",
        "floor": None,
        "kl": [0.05, 0.04, 0.06],
        "by_window": [0.05, 0.04, 0.06],
        "damage": split(0.06, -0.02, 0.01),
        "heads": 4,
        "kv_heads": 2,
        "linears": [v, down],
        "growth": [
            {"name": name, "side": side, "kind": kind, "error": [value, value * 0.9, value * 1.1]}
            for name, side, kind, value in points
        ],
        "attention": [
            {
                "head": head,
                "entropy": [1.5, 2.0],
                "first": [0.6, 0.4],
                "moved": (0.1, 0.2, 0.3, 0.05)[head],
            }
            for head in range(4)
        ],
        "usual": {"v": 31.4},
        "findings": [],
        "kept": [],
        "lacking": [],
        **changes,
    }


def make_causes(**changes: Any) -> Causes:
    """The same, typed."""
    return Causes.model_validate(make_answer(**changes))


def keep_causes(path: Path) -> None:
    """Keep that answer with a run, for its block 5."""
    study = study_of(RunDirectory(path), 5, None)
    with study.hold():
        study.keep(make_answer())


def make_finding(cause: str, **changes: Any) -> Finding:
    """A finding of mlp.down_proj by rounding, or as changed."""
    found = {
        "cause": cause,
        "linear": "mlp.down_proj",
        "step": "rounding",
        "share": [0.62, 0.58, 0.66],
        **changes,
    }
    return Finding.model_validate(found)
