"""Runs that differ from the sample in what they lose, for what sets several side by side."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from awqscope.diagnose.gate.paired import Side, choose_side
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.tables import BLOCKS, UNITS
from tests.help.runs import change_record, read_sample, write_run, write_tokens

OTHER_TOKENS = {**read_sample()["ppl_definition"], "tokens_sha256": "0" * 64}


def side(path: Path, model: str = "") -> Side:
    """A model of a run on disk."""
    run = RunDirectory(path)
    return choose_side(run, run.read(), model)


def write_release(root: Path, name: str, scale: float, day: int = 1, **changes: Any) -> Path:
    """The sample with the KL of every token times `scale` and a noise, one in thirty of the top
    tokens turned, and its size changed against that; begun on a day of January."""
    created = f"2026-01-{day:02}T00:00:00+00:00"
    path = write_run(root, name, created=created, **changes)
    rng = np.random.default_rng(day)
    table = pq.read_table(path / "tokens.parquet")
    headline = json.loads((path / "run.json").read_text(encoding="utf-8"))["headline"]
    for model in ("uniform", "mixed"):
        kl = np.array(table[f"kl_{model}"].to_numpy())
        kl *= (scale * rng.lognormal(0, 0.1, len(kl))).astype(np.float32)
        turned = rng.random(len(kl)) < 1 / 30
        agree = [
            None if one is None else one != turn
            for one, turn in zip(table[f"agree_{model}"].to_pylist(), turned, strict=True)
        ]
        columns = {
            f"kl_{model}": pa.array(kl, pa.float32(), mask=np.isnan(kl)),
            f"agree_{model}": pa.array(agree, pa.bool_()),
        }
        for column, values in columns.items():
            table = table.set_column(table.column_names.index(column), column, values)
        headline["kl"][model] = float(np.nanmean(kl))
        headline["bytes"][model] = int(headline["bytes"][model] * (1 + 0.01 * (1 - scale)))
    write_tokens(path, table)
    change_record(path, headline=headline)
    return path


def raise_damage(path: Path, block: int, unit: str, times: float) -> None:
    """Multiply what a block costs alone, and one of its units at 4 bits."""
    blocks = pq.read_table(path / "blocks.parquet").to_pylist()
    units = pq.read_table(path / "units.parquet").to_pylist()
    for row in blocks:
        if row["block"] == block and row["view"] == "isolated":
            row |= {f"kl{end}": times * row[f"kl{end}"] for end in ("", "_low", "_high")}
    for row in units:
        if row["unit"] == unit and row["bits"] == 4:
            for key in [key for key in row if "_kl" in key and row[key] is not None]:
                row[key] *= times
    pq.write_table(pa.Table.from_pylist(blocks, schema=BLOCKS), path / "blocks.parquet")
    pq.write_table(pa.Table.from_pylist(units, schema=UNITS), path / "units.parquet")
