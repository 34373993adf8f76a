"""A probe in the terminal."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from awqscope.app.words.studies.probe import (
    COLUMNS,
    probe_rows,
    write_finding,
    write_refused,
    write_windows,
)
from awqscope.diagnose.studies.probes.answer import HELPS, WORSE, BlockProbe

STYLES = {HELPS: "bold", WORSE: "dim"}
LEFT = ("name", "what", "verdict")


def show_probe(probe: BlockProbe, console: Console) -> None:
    """Print what would help a block: the finding, a line an alternative, and what was measured."""
    console.print(Text(write_finding(probe), style="bold"))
    console.print(alternatives_table(probe))
    for line in [*write_refused(probe), write_windows(probe)]:
        console.print(Text(line))


def alternatives_table(probe: BlockProbe) -> Table:
    """A line an alternative, named as `--apply` takes it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    rest = {key: heading for key, heading in COLUMNS.items() if key != "what"}
    columns = {"name": COLUMNS["what"], **rest, "bits": "Bits"}
    for key, heading in columns.items():
        side = "left" if key in LEFT else "right"
        table.add_column(heading, justify=side, no_wrap=key == "name", overflow="fold")
    for row, each in zip(probe_rows(probe), probe.alternatives, strict=True):
        table.add_row(*(Text(row[key]) for key in columns), style=STYLES.get(each.verdict, ""))
    return table
