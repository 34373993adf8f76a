"""`awqscope delete`: a run's directory, for good."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from awqscope.app.command_line.common import INPUT_ERROR, examples
from awqscope.app.command_line.options import RunArgument


@examples("awqscope delete reports/my-model", "awqscope delete reports/my-model --yes")
def delete(
    path: RunArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it; there is no way back.")] = False,
) -> None:
    """Delete a run with all that is in its directory, its checkpoint too.

    Without --yes it says what would go and how large it is, deletes nothing, and ends with exit
    code 2. Nothing outside of the directory is touched, and links are not followed.
    """
    from awqscope.app.dashboard.jobs.starts import forget_over
    from awqscope.app.terminal.console import show_controls
    from awqscope.app.terminal.notes import write_deletion
    from awqscope.diagnose.runs.deletion import delete_run, plan_deletion
    from awqscope.mixedprec.words import write_size

    deletion = plan_deletion(path)
    what = f"{deletion.files} files, {write_size(deletion.bytes)}"
    if not yes:
        lines = [f"awqscope: {path} would be deleted: {what}", *write_deletion(deletion)]
        again = shlex.join(["awqscope", "delete", str(path), "--yes"])
        lines.append(f"Nothing was deleted; {again} deletes it, awqscope note hides it (--archive)")
        sys.stderr.write("".join(f"{show_controls(line)}\n" for line in lines))
        raise typer.Exit(INPUT_ERROR)
    # A start that is noted beside it would come back as one that never began.
    forget_over(Path(path).resolve().parent)
    delete_run(deletion)
    print(show_controls(f"{path}: deleted, {what}"))
