"""A run as a notebook shows it: markup without scripts, its text escaped."""

from html import escape

from awqscope.app.notebook.run import Run
from awqscope.app.notebook.sketch import sketch_blocks
from awqscope.app.words.run import headline_tiles, profile_summary, worst_blocks
from awqscope.diagnose.runs.directory import reads_run
from awqscope.mixedprec.errors import InputError

CELL = 'style="text-align: left; padding: 0.1rem 1.2rem 0.1rem 0"'


def write_card(run: Run) -> str:
    """A run's verdict, its headline numbers and its blocks, as far as it has them; of a run that
    cannot be read, why."""
    try:
        parts = _list_parts(run)
    except InputError as error:
        parts = [f"<p>{escape(error.what)}: {escape(error.remedy)}</p>"]
    return f'<div class="awqscope" style="max-width: 46rem">{"".join(parts)}</div>'


def _list_parts(run: Run) -> list[str]:
    with reads_run(run.path):
        found = run.summary
        record = run.record
        parts = [
            f"<p><strong>{escape(run.name)}</strong> · {escape(found.state)}</p>",
            f"<p>{escape(run.verdict)}</p>",
        ]
        if record.headline is None:
            return parts
        lines = [
            f'<tr><th scope="row" {CELL}>{escape(tile.label)}</th>'
            f"<td {CELL}>{escape(tile.value)}</td><td {CELL}>{escape(tile.note)}</td></tr>"
            for tile in headline_tiles(record)
        ]
        if "blocks" in run.tables:
            rows = run.directory.read_table("blocks").to_pylist()
            label = profile_summary(worst_blocks(rows, "kl"), "kl")
            parts.append(sketch_blocks(rows, label))
        return [*parts, f"<table><tbody>{''.join(lines)}</tbody></table>"]
