"""A run's tables as pandas DataFrames. reports/README.md says what each column holds."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from awqscope.app.words.texts import name_texts
from awqscope.diagnose.entries.headline import Headline
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import MIXED, AnyRecord
from awqscope.diagnose.runs.tables import TABLES
from awqscope.diagnose.runs.token_rows import list_token_columns, read_token_rows
from awqscope.mixedprec.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "source"
# What the rows of each table are found by.
INDEXES = {
    "blocks": ("block", "view"),
    "units": ("unit", "bits"),
    "groups": ("unit", "bits", "group_size"),
    "linears": ("linear", "bits"),
    "promotions": ("block",),
    "weights": ("block", "linear"),
    "activations": ("block", "site", "model"),
    "ranges": ("block", "site", "part", "model"),
    "tokens": (SOURCE, "window", "position"),
}
# By token and for few of them: lists, which are large, and read where they are asked for.
NESTED = tuple(field.name for field in TABLES["tokens"] if pa.types.is_nested(field.type))
PLAIN_TOKENS = tuple(name for name in TABLES["tokens"].names if name not in NESTED)
BOUNDS = ("", "_low", "_high")


def list_tables(run: RunDirectory) -> tuple[str, ...]:
    """The names of the tables that a run has so far."""
    return tuple(name for name in INDEXES if (run.path / f"{name}.parquet").exists())


def read_frame(
    run: RunDirectory, name: str, columns: Sequence[str] | None = None
) -> "pd.DataFrame":
    """A table by its index of INDEXES; tokens have `read_tokens`. columns: those that are read, by
    default all. InputError for a table or column that there is not, and for a damaged one."""
    if name not in INDEXES:
        raise InputError(f"there is no table {name!r}", f"the tables are {', '.join(INDEXES)}")
    index = list(INDEXES[name])
    wanted = None if columns is None else [*index, *_without(columns, index)]
    return _to_pandas(run.read_table(name, wanted)).set_index(index)


def read_tokens(
    run: RunDirectory,
    record: AnyRecord,
    columns: Sequence[str] | None = None,
    windows: Collection[int] | None = None,
) -> "pd.DataFrame":
    """Tokens by the text that they are from (`source`), window and position, in reading order.

    columns: those that are read, by default all but NESTED, which few tokens have. windows: of
    which alone rows are read, by default all. InputError for a column or window that there is not,
    and for a table that is missing or damaged.
    """
    place = ["window", "position"]
    if columns is None:
        there = list_token_columns(run)
        columns = [name for name in PLAIN_TOKENS if name in there]
    wanted = [*place, *_without(columns, place)]
    table = (
        run.read_table("tokens", wanted)
        if windows is None
        else read_token_rows(run, wanted, windows)
    )
    found = _to_pandas(table)
    absent = set(windows or ()).difference(found["window"])
    if absent:
        last = record.ppl_definition.windows - 1
        raise InputError(f"{run.path} has no window {min(absent)}", f"give some of 0 to {last}")
    texts = name_texts(record)
    at = np.searchsorted(texts.firsts, found["window"].to_numpy(), side="right") - 1
    found.insert(0, SOURCE, np.asarray(texts.names, dtype=object)[at])
    return found.set_index(list(INDEXES["tokens"]))


def frame_headline(record: AnyRecord) -> "pd.DataFrame":
    """The headline, a row a model: `reference`, then `uniform` and, once proved, `mixed`; of a
    comparison `candidate`. What is against the reference is missing in its own row, and what is not
    of one model is in the record. InputError while nothing is measured."""
    import pandas as pd

    headline = record.measured
    models = ["reference", record.quantized, *([MIXED] if headline.ppl.mixed is not None else [])]
    rows: dict[str, dict[str, Any]] = {}
    for model in models:
        row: dict[str, Any] = {"ppl": headline.ppl.of(model)}
        row |= _bound("delta_ppl", headline.delta_ppl.of(model))
        interval = headline.kl_interval.of(model) or (None, None)
        row |= _bound("kl", (headline.kl.of(model), *interval))
        row |= {
            name: getattr(headline, name).of(model)
            for name in ("kl_p99", "kl_p999", "top1_agreement")
        }
        row |= {"bytes": headline.bytes.of(model), **dict.fromkeys(_names("recovered"))}
        if model == MIXED and isinstance(headline, Headline):
            interval = headline.recovered_interval or (None, None)
            row |= _bound("recovered", (headline.recovered, *interval))
        rows[model] = row
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    # Columns without a number in any row would be of objects.
    return frame.astype({name: "float64" for name in frame.columns if name != "bytes"})


def _names(name: str) -> list[str]:
    return [f"{name}{end}" for end in BOUNDS]


def _bound(name: str, values: Sequence[float | None] | None) -> dict[str, float | None]:
    """A number and its bounds as three columns; missing where there is none."""
    return dict(zip(_names(name), values or (None, None, None), strict=True))


def _without(columns: Sequence[str], index: Sequence[str]) -> list[str]:
    return [name for name in columns if name not in (*index, SOURCE)]


def _to_pandas(table: pa.Table) -> "pd.DataFrame":
    """An Arrow table with its types kept where values are missing: plain pandas makes objects of
    truth values and floats of whole numbers there."""
    import pandas as pd

    kept = {pa.bool_(): pd.BooleanDtype()}
    whole = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}
    lacking = {name for name in table.column_names if table[name].null_count}
    by_column = {
        field.name: whole[field.type]
        for field in table.schema
        if field.name in lacking and field.type in whole
    }
    frame = table.to_pandas(types_mapper=kept.get, integer_object_nulls=bool(by_column))
    return frame.astype(by_column)
