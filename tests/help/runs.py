"""Run directories that a test can make in a moment: the sample, changed where it says so."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from awqscope.diagnose.runs.earlier import SCHEMA
from awqscope.diagnose.runs.record import AnyRecord, Record, read_record
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.runs.tables import TOKENS, UNITS
from tests.help.root import ROOT

SAMPLE = ROOT / "reports" / "sample"
# Entries of the headline that uniform, mixed and a candidate have.
PAIRED = ("ppl", "delta_ppl", "kl", "kl_interval", "kl_p99", "kl_p999", "top1_agreement")


def read_sample() -> dict[str, Any]:
    """The sample's run.json, as it is on disk."""
    return json.loads((SAMPLE / "run.json").read_text(encoding="utf-8"))


def parse_record(entries: Mapping[str, Any]) -> AnyRecord:
    """The record of a run.json with these entries."""
    return read_record(dict(entries), Path("run.json"))


def parse_run(entries: Mapping[str, Any]) -> Record:
    """The record of a run with these entries."""
    found = parse_record(entries)
    assert isinstance(found, Record)
    return found


def make_record(spec: RunSpec, **changes: Any) -> Record:
    """The record of a run that has just begun, of the sample's model; changes: to its top level."""
    begun = {"state": "running", "stages": {}, "headline": {}, "chunks": {}, "error": None}
    asked = {"model": spec.model, "spec": spec.to_json()}
    entries = {**parse_run(read_sample()).to_json(), **begun, **asked, **changes}
    for later in ("sweep", "estimator"):
        entries.pop(later)
    return parse_run(entries)


def write_run(root: Path, name: str = "sample", **changes: Any) -> Path:
    """A copy of the sample below `root`, with `changes` to the top level of its run.json."""
    path = root / name
    shutil.copytree(SAMPLE, path, ignore=shutil.ignore_patterns("awq"))
    if changes:
        change_record(path, **changes)
    return path


def cut_texts(path: Path, **windows: int) -> Path:
    """Make the run at `path` one on several texts, each of so many of its windows, in order; name
    -> windows. Windows that are over are left out."""
    found = json.loads((path / "run.json").read_text(encoding="utf-8"))
    definition, parts = found["ppl_definition"], []
    for name, count in windows.items():
        first = sum(part["windows"] for part in parts)
        here = {"text": f"texts/{name}.txt", "sha256": name, "first_window": first}
        parts.append(here | {"windows": count})
    total, length = sum(windows.values()), definition["seq_len"]
    kept = {"windows": total, "scored_tokens": total * (length - 1), "slices": parts}
    named = " and ".join(part["text"] for part in parts)
    change_record(path, ppl_definition=definition | kept | {"text": named})
    tokens = pq.read_table(path / "tokens.parquet")
    if tokens.num_rows > total * length:
        write_tokens(path, tokens.slice(0, total * length))
    return path


def change_record(path: Path, **changes: Any) -> None:
    """Change top-level entries of a run's run.json; None takes an entry away."""
    record = {**json.loads((path / "run.json").read_text(encoding="utf-8")), **changes}
    record = {key: value for key, value in record.items() if value is not None}
    (path / "run.json").write_text(json.dumps(record), encoding="utf-8")


def write_comparison(root: Path, name: str = "candidate") -> Path:
    """The sample's mixed model as `awqscope compare` would have it, measured in uniform's place."""
    path = root / name
    shutil.copytree(SAMPLE, path, ignore=shutil.ignore_patterns("awq", "recipe*", "p*"))
    record = parse_run(read_sample()).to_json()
    headline = {key: record["headline"][key] for key in ("flagged", "additivity")}
    for entry in (*PAIRED, "bytes"):
        numbers = record["headline"][entry]
        headline[entry] = {"candidate": numbers["mixed"]}
        if "reference" in numbers:
            headline[entry]["reference"] = numbers["reference"]
    spec = {key: record["spec"][key] for key in ("valid", "windows", "seq_len", "top_k", "seed")}
    spec |= {"reference": record["model"], "candidate": "us/mixed", "delta_ppl": None}
    change_record(
        path,
        schema=SCHEMA,
        kind="compare",
        headline=headline,
        sweep=record["sweep"],
        spec=spec,
        calibration=None,
        plan=None,
        estimator=None,
        candidate={
            "path": "us/mixed",
            "format": "compressed-tensors",
            "bits": {"4": 52, "8": 4},
            "tokenizer": True,
            "hashes": {"model.safetensors": "c0ffee"},
        },
    )
    tokens = pq.read_table(path / "tokens.parquet")
    for column in ("nll", "kl", "agree"):
        at = tokens.column_names.index(f"{column}_uniform")
        tokens = tokens.set_column(at, f"{column}_uniform", tokens[f"{column}_mixed"])
        at = tokens.column_names.index(f"{column}_mixed")
        none = pa.nulls(tokens.num_rows, tokens[f"{column}_mixed"].type)
        tokens = tokens.set_column(at, f"{column}_mixed", none)
    write_tokens(path, tokens)
    recipe = json.loads((SAMPLE / "recipe.json").read_text(encoding="utf-8"))
    widths = {entry["unit"]: entry["bits"] for entry in recipe["units"]}
    rows = pq.read_table(path / "units.parquet").to_pylist()
    found = [row for row in rows if row["bits"] == widths[row["unit"]]]
    for row in found:
        row |= {key: None for key in row if key.startswith(("estimated", "exact"))}
    pq.write_table(pa.Table.from_pylist(found, schema=UNITS), path / "units.parquet")
    return path


def make_tokens(windows: int, length: int, *, text: str = "word", seed: int = 0) -> pa.Table:
    """A token table with random scores; a window's first token has none."""
    rng = np.random.default_rng(seed)
    count = windows * length
    first = np.arange(count) % length == 0

    def scores(scale: float) -> pa.Array:
        return pa.array(rng.exponential(scale, count).astype(np.float32), mask=first)

    def profiled(make: Callable[[], Any]) -> list[Any]:
        """What only the first windows know."""
        return [None if at % length == 0 or at // length > 2 else make() for at in range(count)]

    def likeliest() -> list[dict[str, Any]]:
        return [{"token": at, "text": f"{text}{at}", "probability": 0.2} for at in range(5)]

    columns: Mapping[str, Any] = {
        "window": np.repeat(np.arange(windows), length),
        "position": np.tile(np.arange(length), windows),
        "token": rng.integers(0, 9, count),
        "text": [f"{text}{at % 7}" for at in range(count)],
        "nll_reference": scores(4.0),
        "nll_uniform": scores(4.2),
        "nll_mixed": pa.nulls(count, pa.float32()),
        "kl_uniform": scores(0.2),
        "kl_mixed": pa.nulls(count, pa.float32()),
        "agree_uniform": pa.array(rng.random(count) < 0.7, mask=first),
        "agree_mixed": pa.nulls(count, pa.bool_()),
        "block_kl": profiled(lambda: rng.exponential(0.03, 8).tolist()),
        "restored_kl": profiled(lambda: rng.exponential(0.2, 8).tolist()),
        "top_reference": profiled(likeliest),
        "top_uniform": profiled(likeliest),
    }
    return pa.table(columns, schema=TOKENS)


def write_tokens(path: Path, table: pa.Table, row_group: int = 16_384) -> None:
    """Put a token table into the run at `path`."""
    pq.write_table(table, path / "tokens.parquet", row_group_size=row_group)
