"""An answer of `awqscope alternatives` made by hand."""

from collections.abc import Sequence
from typing import Any

from awqscope.diagnose.studies.alternatives.answer import Alternative, Alternatives

UNIFORM_KL = 0.2


def make_row(name: str, bits: float, kl: float, **changes: Any) -> Alternative:
    """A row whose intervals are a tenth of uniform's KL wide on both sides."""
    over, half = kl - UNIFORM_KL, UNIFORM_KL / 10
    is_uniform = name == "uniform"
    entries = {
        "name": name,
        "title": f"title of {name}",
        "kind": name.partition("-")[0].upper() if "-" in name else "AWQ",
        "stamp": {},
        "bytes": int(1_000_000 * bits),
        "bits_per_weight": bits,
        "seconds": 12.0,
        "places": [],
        "weights_alone": False,
        "ppl": 60 + 10 * kl,
        "delta_ppl": (10 * kl, 10 * kl - 1, 10 * kl + 1),
        "kl": (kl, kl / 2, kl * 2),
        "agreement": (0.8, 0.7, 0.9),
        "kl_over_uniform": (0.0, 0.0, 0.0) if is_uniform else (over, over - half, over + half),
        "ppl_over_uniform": (10 * over, 10 * over - 1, 10 * over + 1),
        "blocks": None,
        "by_window": {"nll": [4.0, 4.2], "kl": [kl, kl], "agreement": [0.8, 0.8]},
    }
    return Alternative.model_validate({**entries, **changes})


def make_answer(rows: Sequence[Alternative], **changes: Any) -> Alternatives:
    """The whole answer, of two windows."""
    entries = {
        "run": "demo",
        "model": "m",
        "text": "valid.txt",
        "windows": 2,
        "seq_len": 256,
        "block_windows": 2,
        "reference_ppl": 60.0,
        "reference_bytes": 16_000_000,
        "quantized_before": None,
        "reference_nll": [4.0, 4.1],
        "rows": [row.to_json() for row in sorted(rows, key=lambda row: row.kl[0])],
        "left_out": {},
    }
    return Alternatives.model_validate({**entries, **changes})


def make_usual() -> Alternatives:
    """Uniform, what is better and worse at more and at fewer bits, and one that is not told apart;
    of two the blocks too."""
    blocks = [(0.1, 0.05, 0.15), (0.3, 0.2, 0.4)]
    return make_answer(
        [
            make_row("uniform", 4.25, UNIFORM_KL, blocks=blocks),
            make_row("mixed", 4.4, 0.05),
            make_row("rescue", 8.25, 0.002),
            make_row("rtn-4", 4.25, 0.4, blocks=blocks),
            make_row("gguf-q4_0", 4.5, 0.35, kind="GGUF"),
            make_row("awq-3", 3.25, 0.9, kind="AWQ"),
            make_row("nf4-x", 4.13, 0.21),
            make_row("gptq", 4.16, 0.1, kind="added", seconds=None, places=["head"]),
        ],
        left_out={"awq-g128": "128 does not divide 96"},
    )
