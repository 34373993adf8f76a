"""A directory of large runs: 80 blocks of seven units, and as many tokens as one wants, as they
would be of a model of some 70 billion weights; no model is computed for it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from awqscope.diagnose.runs.tables import ACTIVATIONS, BLOCKS, TOKENS, UNITS
from awqscope.mixedprec.files.atomic import write_json

SAMPLE = Path(__file__).parent.parent.parent / "reports" / "sample"
BLOCK_COUNT = 80
KINDS = ("q", "k", "v", "o", "gate", "up", "down")
FLAGGED = (5, 40)
# Of a unit, for each bit of its weights.
UNIT_BYTES = 8_000_000
CHANNELS = 4096
SEQ_LEN = 2048
ROW_GROUP = 16_384
PROFILED_WINDOWS = 8


def block_rows(rng: np.random.Generator) -> list[dict[str, Any]]:
    """blocks.parquet of a model in which FLAGGED stand out."""
    alone = rng.lognormal(-6, 0.4, BLOCK_COUNT)
    alone[list(FLAGGED)] *= 60
    views = {
        "isolated": alone,
        "cumulative": alone.cumsum(),
        "restored": alone.sum() - alone,
    }
    rows = []
    for view, values in views.items():
        for block, kl in enumerate(values.tolist()):
            row: dict[str, Any] = {"block": block, "view": view, "top1_agreement": 0.9}
            for name, factor in (("kl", 1.0), ("delta_nll", 1.1), ("delta_ppl", 9.0)):
                value = kl * factor
                row |= {name: value, f"{name}_low": value * 0.9, f"{name}_high": value * 1.1}
            flagged = block in FLAGGED
            rows.append(row | {"flagged": flagged, "z": 4.0 if flagged else 0.5, "reason": "KL"})
    return rows


def unit_rows(rng: np.random.Generator) -> list[dict[str, Any]]:
    """units.parquet at two widths and unquantized; every seventh unit was measured."""
    rows = []
    for block in range(BLOCK_COUNT):
        for at, kind in enumerate(KINDS):
            for bits in (4, 8, 16):
                kl = float(rng.lognormal(-7 if bits == 4 else -13, 1.0)) * (bits < 16)
                row = {"unit": f"{block}.{kind}", "block": block, "kind": kind, "bits": bits}
                row |= {"bytes": UNIT_BYTES * bits}
                for name, value in (("estimated", kl), ("exact", kl if at == block % 7 else None)):
                    bounds = (None, None) if value is None else (value * 0.9, value * 1.1)
                    row |= {f"{name}_kl": value}
                    row |= dict(zip((f"{name}_kl_low", f"{name}_kl_high"), bounds, strict=True))
                rows.append(row)
    return rows


def activation_rows(rng: np.random.Generator) -> list[dict[str, Any]]:
    """activations.parquet: a row a block, site and model."""
    rows = []
    for block in range(BLOCK_COUNT):
        for site in (*KINDS, "output"):
            for model in ("reference", "uniform"):
                row = {name: float(rng.normal()) for name in ACTIVATIONS.names}
                outliers = rng.choice(CHANNELS, 8, replace=False).tolist()
                rows.append(
                    row
                    | {"block": block, "site": site, "model": model}
                    | {"outlier_channels": outliers, "outlier_values": [9.0] * 8}
                    | {"channel_median": 1.5, "sqnr": 30 - block / 8, "cosine": 0.999}
                )
    return rows


def activation_arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The arrays of the blocks that are looked at."""
    side = np.geomspace(1e-3, 1e3, 385)
    arrays = {"histogram_edges": np.concatenate([-side[::-1], side]).astype(np.float32)}
    for block in (0, *FLAGGED):
        for site in (*KINDS, "output"):
            for model in ("reference", "uniform"):
                tail = f"{block}.{site}.{model}"
                arrays[f"histogram.{tail}"] = rng.integers(0, 10_000, 769)
                arrays[f"channel_max.{tail}"] = rng.lognormal(0, 1, CHANNELS).astype(np.float32)
    return arrays


def token_table(rng: np.random.Generator, count: int) -> pa.Table:
    """tokens.parquet of `count` tokens; the first windows have every block's KL."""
    first = np.arange(count) % SEQ_LEN == 0
    window = np.arange(count) // SEQ_LEN

    def scores(scale: float) -> pa.Array:
        return pa.array(rng.exponential(scale, count).astype(np.float32), mask=first)

    def agreement(share: float) -> pa.Array:
        return pa.array(rng.random(count) < share, mask=first)

    profiled = min(count, PROFILED_WINDOWS * SEQ_LEN)
    by_block = rng.exponential(0.003, (profiled, BLOCK_COUNT)).astype(np.float32).tolist()
    nothing = [None] * (count - profiled)
    words = [f" word{number}" for number in range(5000)]
    ids = rng.integers(0, len(words), count)

    def known(rows: list[Any]) -> list[Any]:
        return [None if skip else row for row, skip in zip([*rows, *nothing], first, strict=True)]

    tops = [
        [
            {"token": int(token), "text": words[token], "probability": 0.2}
            for token in rng.integers(0, len(words), 5)
        ]
        for _ in range(profiled)
    ]
    columns = {
        "window": window,
        "position": np.arange(count) % SEQ_LEN,
        "token": ids,
        "text": [words[token] for token in ids],
        "nll_reference": scores(3.0),
        "nll_uniform": scores(3.1),
        "nll_mixed": scores(3.0),
        "kl_uniform": scores(0.2),
        "kl_mixed": scores(0.02),
        "agree_uniform": agreement(0.7),
        "agree_mixed": agreement(0.9),
        "block_kl": known(by_block),
        "restored_kl": known(by_block),
        "top_reference": known(tops),
        "top_uniform": known(tops),
    }
    return pa.table(columns, schema=TOKENS)


def write_runs(root: Path, runs: int, tokens: int, whole: int = 1) -> list[str]:
    """Write the runs; returns their names, those with all the tokens first. whole: how many have
    them, the same ones."""
    rng = np.random.default_rng(0)
    record = json.loads((SAMPLE / "run.json").read_text(encoding="utf-8"))
    record["source"] |= {"blocks": BLOCK_COUNT, "units": list(KINDS)}
    quantized = len(KINDS) * BLOCK_COUNT * UNIT_BYTES * 4
    sizes = {"reference": 4 * quantized, "uniform": quantized, "mixed": quantized}
    record["headline"] |= {"flagged": list(FLAGGED), "bytes": sizes}
    recipe = json.loads((SAMPLE / "recipe.json").read_text(encoding="utf-8"))
    recipe["units"] = [
        {
            "unit": f"{block}.{kind}",
            "linears": [f"model.layers.{block}.{kind}_proj"],
            "bits": 8 if block in FLAGGED and kind in ("v", "o") else 4,
        }
        for block in range(BLOCK_COUNT)
        for kind in KINDS
    ]
    names = [f"run-{number:03}" for number in range(runs)]
    first = root / names[0]
    shutil.copytree(SAMPLE, first, ignore=shutil.ignore_patterns("awq"))
    write_json(first / "recipe.json", recipe)
    pq.write_table(pa.Table.from_pylist(block_rows(rng), BLOCKS), first / "blocks.parquet")
    pq.write_table(pa.Table.from_pylist(unit_rows(rng), UNITS), first / "units.parquet")
    rows = activation_rows(rng)
    pq.write_table(pa.Table.from_pylist(rows, ACTIVATIONS), first / "activations.parquet")
    save_file(activation_arrays(rng), first / "activations.safetensors")
    few = token_table(rng, 2 * SEQ_LEN)
    pq.write_table(few, first / "tokens.parquet", row_group_size=ROW_GROUP)
    for number, name in enumerate(names):
        if number:
            shutil.copytree(first, root / name)
        created = f"2026-01-01T{number // 60:02}:{number % 60:02}:00+00:00"
        write_json(root / name / "run.json", record | {"created": created, "model": f"m{number}"})
    pq.write_table(token_table(rng, tokens), first / "tokens.parquet", row_group_size=ROW_GROUP)
    for name in names[1:whole]:
        shutil.copy(first / "tokens.parquet", root / name / "tokens.parquet")
    return names
