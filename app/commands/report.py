"""`awqscope report`: a finished run as one page to send to someone."""

from pathlib import Path
from typing import Annotated

import typer

from awqscope.app.command_line.common import STDOUT, examples, write_output
from awqscope.app.command_line.options import RunArgument
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.words import write_size

SUFFIXES = (".html", ".htm")


@examples("awqscope report reports/my-model -o my-model.html")
def report(
    path: RunArgument,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="File ending in .html; - is stdout.")
    ],
    policy: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Policy (TOML) of the release gate's verdict. [default: see gate --print-policy]",
        ),
    ] = None,
) -> None:
    """Write a finished run as one page to send to someone.

    It says whether the run may be released, as gate does. It is HTML and needs nothing else. A FILE
    that is there is replaced, in one step. The page asks nobody for anything, and the same run
    gives the same page.
    """
    from awqscope.app.report.contents import read_findings
    from awqscope.app.report.page import write_page
    from awqscope.diagnose.gate.policy import load_policy
    from awqscope.diagnose.runs.directory import reads_run

    # Nothing but a page is ever replaced, such as a recipe named by mistake.
    if out != STDOUT and (out.suffix.lower() not in SUFFIXES or out.is_dir()):
        remedy = "give -o a file that ends in .html, or -"
        if out.suffix.lower() == ".pdf":
            remedy += "; a browser prints that as PDF, on A4"
        raise InputError(f"{out} is no page", remedy)
    wanted = load_policy(policy)
    with reads_run(path):
        page = write_page(read_findings(path, wanted))
    write_output(out, page)
    if out != STDOUT:
        print(f"{out}: {write_size(len(page.encode()))}")
