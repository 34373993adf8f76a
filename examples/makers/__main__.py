"""Every checkpoint that other tools make, against what those tools say of it, in one command.

`python -m examples.makers [TOOL…] [--model DIR] [--fresh] [-o FILE.md]`, or `make test-makers`.
Each `TOOL.py` beside this file is run in `.venv-makers/TOOL`, an environment of its own that is
made from `TOOL.txt`; what it writes is given to `awqscope compare`, and the perplexity of that is
held to the tool's own. Exits with 1 where a tool fails, a checkpoint is not read, or the two differ
by more than `shared/table.py` allows. What was made is kept in `reports/.makers`, so that the
command can be stopped and given again: a variant that did not fail is made again where its script
or its pins have changed since, or with `--fresh`. The page has every variant that is kept, and
keeps the part that `python -m examples.makers.emitted` writes.

A script is run as `python -P TOOL.py VARIANT MODEL OUT --calib FILE --windows FILE` and as
`python -P TOOL.py --list`, which prints its variants. Without -P its own folder comes first among
those that are searched, and a script called as the tool it imports would import itself. What
scripts share is `shared/making.py`, whose folder they put last among them. A line
`# --no-deps` in TOOL.txt says that the list is whole and pip is to add nothing to it.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from awqscope.app.demo import find_demo
from examples.makers.shared.page import update_page
from examples.makers.shared.table import (
    Row,
    Said,
    from_json,
    judge,
    list_cells,
    read_last,
    to_json,
    write_part,
)
from examples.makers.shared.workplace import (
    HERE,
    KEPT,
    LENGTH,
    MAKING,
    PAGE,
    WINDOWS,
    compare,
    describe_place,
    make_environment,
    run_script,
    write_tokens,
)


def list_tools() -> list[str]:
    """The tools that have a script, by its pins."""
    return sorted(path.stem for path in HERE.glob("*.txt") if path.with_suffix(".py").exists())


def make_row(python: Path, tool: str, variant: str, model: Path, tokens: Sequence[Path]) -> Row:
    """Make one variant and measure it. tokens: the files to calibrate on and to measure."""
    folder = KEPT / tool / variant
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = folder / "checkpoint"
    options = [part for pair in zip(("--calib", "--windows"), tokens, strict=True) for part in pair]
    said = Said(tool, variant, "–")
    try:
        said = read_last(run_script(python, HERE / f"{tool}.py", variant, model, made, *options))
        if said.unable is not None:
            return Row(said)
        return judge(said, compare(model, made, folder / "run"))
    except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
        return Row(said, fault=str(error))


def read_kept(tool: str, variant: str) -> Row | None:
    """The row that was kept of a variant; None where there is none, and where the tool's script or
    pins, or what scripts share, have changed since."""
    kept = KEPT / tool / variant / "row.json"
    sources = (HERE / f"{tool}.py", HERE / f"{tool}.txt", MAKING)
    if not kept.exists() or kept.stat().st_mtime < max(path.stat().st_mtime for path in sources):
        return None
    return from_json(json.loads(kept.read_text(encoding="utf-8")))


def take_rows(tools: Sequence[str], model: Path, fresh: bool) -> Iterator[Row]:
    """A row a variant of the tools, made now unless one without a fault is kept."""
    KEPT.mkdir(parents=True, exist_ok=True)
    tokens = write_tokens(model, KEPT)
    for tool in tools:
        python = make_environment(tool)
        for variant in run_script(python, HERE / f"{tool}.py", "--list").split():
            row = None if fresh else read_kept(tool, variant)
            if row is None or row.fault is not None:
                row = make_row(python, tool, variant, model, tokens)
                kept = KEPT / tool / variant / "row.json"
                kept.write_text(json.dumps(to_json(row)), encoding="utf-8")
            yield row


def list_rows() -> list[Row]:
    """Every row that is kept and still true, of all tools."""
    found = ((path.parts[-3], path.parts[-2]) for path in sorted(KEPT.glob("*/*/row.json")))
    rows = [read_kept(tool, variant) for tool, variant in found if tool in list_tools()]
    return [row for row in rows if row is not None]


def main() -> int:
    """Make and measure, printing a line a variant, and write the page after each."""
    parser = argparse.ArgumentParser(prog="python -m examples.makers")
    parser.add_argument("tools", nargs="*", metavar="TOOL", help="all that have a script")
    parser.add_argument("--model", type=Path, default=find_demo(), help="a 16-bit model")
    parser.add_argument("-o", "--out", type=Path, default=PAGE, help="page to write")
    parser.add_argument("--fresh", action="store_true", help="make all of it anew")
    given = parser.parse_args()
    unknown = sorted(set(given.tools) - set(list_tools()))
    if unknown:
        parser.error(f"no script makes {', '.join(unknown)}: there are {', '.join(list_tools())}")
    about = (
        *describe_place(),
        f"{WINDOWS} windows of {LENGTH} tokens of the bundled model's held-out text",
        "again: `make test-makers`",
    )
    failed = 0
    for row in take_rows(given.tools or list_tools(), given.model.resolve(), given.fresh):
        print(" | ".join(list_cells(row)), flush=True)
        failed += row.fault is not None
        update_page(given.out, write_part(list_rows(), about))
    print(f"{failed} failed; written to {given.out}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
