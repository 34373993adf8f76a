"""`awqscope report`: finished runs as one page to send to someone, or as a directory of pages."""

from pathlib import Path
from typing import Annotated

import typer

from awqscope.app.command_line.common import STDOUT, examples, write_output
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.words import write_size

SUFFIXES = (".html", ".htm")


@examples(
    "awqscope report reports/my-model -o my-model.html",
    "awqscope report reports/my-model reports/last-release -o site",
    "awqscope report reports -o site",
)
def report(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Run directories, or a directory of runs."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="File ending in .html, - is stdout; of several runs a directory.",
        ),
    ],
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Policy (TOML) to judge by. [default: RUN/policy.toml, else gate --print-policy]",
        ),
    ] = None,
) -> None:
    """Write finished runs as one page to send to someone, or as a directory of pages.

    It says whether a run may be released, as gate does. A page is HTML and needs nothing else. A
    FILE that is there is replaced, in one step. The page asks nobody for anything, and the same run
    gives the same page. Several runs, or a directory of runs, make a directory with a list and a
    page a run, which any web server hands out and a browser opens from disk; an earlier one there
    is replaced, and anything else is left alone.
    """
    from awqscope.diagnose.gate.policy import load_policy
    from awqscope.diagnose.runs.naming import RUNS, find_kind

    is_page = out == STDOUT or (out.suffix.lower() in SUFFIXES and not out.is_dir())
    several = len(paths) > 1 or find_kind(paths[0]) == RUNS
    if several and is_page:
        raise InputError(f"{out} is one page, and several runs are given", "give -o a directory")
    # Nothing but a page is ever replaced, such as a recipe named by mistake.
    if not several and not is_page:
        remedy = "give -o a file that ends in .html, or -"
        if out.suffix.lower() == ".pdf":
            remedy += "; a browser prints that as PDF, on A4"
        raise InputError(f"{out} is no page", remedy)
    wanted = None if policy is None else load_policy(policy)
    if several:
        from awqscope.app.report.bundle import INDEX, write_bundle

        entries = write_bundle(paths, out, wanted)
        pages = [entry for entry in entries if entry.page]
        size = sum(path.stat().st_size for path in out.iterdir())
        print(f"{out / INDEX}: {len(pages)} of {len(entries)} runs, {write_size(size)}")
        return
    from awqscope.app.report.contents import read_findings
    from awqscope.app.report.page import write_page
    from awqscope.diagnose.runs.directory import reads_run

    (path,) = paths
    with reads_run(path):
        page = write_page(read_findings(path, wanted))
    write_output(out, page)
    if out != STDOUT:
        print(f"{out}: {write_size(len(page.encode()))}")
