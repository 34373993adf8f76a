"""Part of a run's token table: some columns of some windows. A table may hold millions of rows; of
it nothing is read that cannot hold them."""

from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.tables import DAMAGES
from awqscope.mixedprec.errors import InputError

NAME, WINDOW = "tokens", "window"


def list_token_columns(run: RunDirectory) -> tuple[str, ...]:
    """The columns of a run's token table. InputError where it is missing or damaged."""
    # Of no rows: that it is there, and a table of a run, is seen to in one place.
    return tuple(read_token_rows(run, None, ()).column_names)


def read_token_rows(
    run: RunDirectory, columns: Sequence[str] | None, windows: Collection[int]
) -> pa.Table:
    """The rows of `windows`, in reading order. columns: those that are read, by default all.
    InputError where the table or a column is missing, or what is read of it is damaged."""
    if not (run.path / f"{NAME}.parquet").exists():
        return run.read_table(NAME)
    path = run.path / f"{NAME}.parquet"
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            lacking = set(columns or ()).difference(names)
            if lacking:
                return run.read_table(NAME, columns)
            kept = _list_row_groups(file, windows)
            wanted = names if columns is None else list(columns)
            table = file.read_row_groups(kept, list(dict.fromkeys([*wanted, WINDOW])))
        sought = pa.array(sorted(windows), table[WINDOW].type)
        found = table.filter(pc.is_in(table[WINDOW], value_set=sought)).select(wanted)
        found.validate(full=True)
        return found
    except DAMAGES as error:
        raise InputError(
            f"{path} cannot be read ({error})", "copy the whole run directory again"
        ) from error


def _list_row_groups(file: pq.ParquetFile, windows: Collection[int]) -> list[int]:
    """The row groups that can hold rows of some windows, by what their footers say."""
    # Leaves are counted: a list is one, with a name of its own.
    leaves = [file.metadata.schema.column(at).path for at in range(len(file.metadata.schema))]
    at, found = leaves.index(WINDOW), []
    for number in range(file.num_row_groups):
        known = file.metadata.row_group(number).column(at).statistics
        unknown = known is None or not known.has_min_max
        if unknown or any(known.min <= window <= known.max for window in windows):
            found.append(number)
    return found
