"""Where a checkpoint goes, in the terminal."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from awqscope.mixedprec.checkpoints.destinations import Destination, Kind
from awqscope.mixedprec.checkpoints.serving import VERBS, Serving, write_serving
from awqscope.mixedprec.checkpoints.tgi import TGI


def write_destinations(
    checkpoint: Path,
    kind: Kind,
    servings: tuple[Serving, Serving],
    here: Sequence[tuple[Destination, str]],
    everywhere: Sequence[Destination],
) -> Iterator[str]:
    """The lines of `awqscope check`: the kind, what servers' rules say of its content, what is
    installed, and every other reader. servings: by the rules of the three that every run is held
    to, and by TGI's. here: with the version of each package that is installed."""
    serving, tgi = servings
    yield f"{checkpoint}: {kind}"
    yield f"held against their rules: {write_serving(serving.to_json())}"
    if TGI in tgi.consumers:
        yield ". ".join([f"and against TGI's: it {VERBS[tgi.outcome(TGI)][0]}", *tgi.notes])
    yield ""
    yield "Installed here:" if here else "No reader of it is installed here."
    for row, version in here:
        yield from _write_row(row, f"{row.package} {version}")
    yield ""
    yield "Elsewhere:"
    shown = {(row.reader, row.package_and_versions) for row, _ in here}
    for row in everywhere:
        if (row.reader, row.package_and_versions) not in shown:
            yield from _write_row(row, row.package_and_versions)


def _write_row(row: Destination, package: str) -> Iterator[str]:
    yield f"  {row.reader} {VERBS[row.outcome][0]}{row.condition} ({package}): {row.why}"
    if row.remedy:
        yield f"    {row.remedy}"
