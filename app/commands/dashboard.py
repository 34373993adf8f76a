"""`awqscope dashboard`: every run of a directory, in the browser."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from awqscope.app.command_line.common import check_runs, examples


@examples(
    "awqscope dashboard",
    "awqscope dashboard /data/runs --port 0",
    "AWQSCOPE_TOKEN=… awqscope dashboard --host 0.0.0.0 --allow-remote",
)
def dashboard(
    runs_dir: Annotated[
        Path, typer.Argument(metavar="[RUNS_DIR]", help="Directory that holds runs.")
    ] = Path("reports"),
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to answer on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", help="Port to answer on; 0 for any free one.")
    ] = 8050,
    allow_remote: Annotated[
        bool, typer.Option(help="Allow a host that other machines can reach.")
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar="AWQSCOPE_TOKEN",
            help="What a visitor must show; without it, others only read.",
        ),
    ] = None,
    name: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="Host name the dashboard is reached by; repeatable."),
    ] = [],
    read_only: Annotated[bool, typer.Option(help="Start and stop nothing from the pages.")] = False,
) -> None:
    """Open the web dashboard on every run in RUNS_DIR."""
    from awqscope.app.dashboard.access import decide_access
    from awqscope.app.dashboard.server import create_app, listen, open_socket
    from awqscope.app.store import Store

    check_runs(runs_dir, f"give the directory that it is in, {runs_dir.absolute().parent}")
    access = decide_access(
        host, allow_remote=allow_remote, token=token, names=tuple(name), read_only=read_only
    )
    bound = open_socket(host, port)
    server = listen(create_app(Store(runs_dir), access), bound)
    shown = f"[{host}]" if ":" in host else host
    way_in = "" if token is None else "?token=…, the token you set"
    # Printed once it listens: what starts the dashboard may open the address at once.
    address = f"http://{shown}:{bound.getsockname()[1]}/{way_in}"
    # The server heeds an interrupt itself, but for one that comes before it has begun.
    with contextlib.suppress(KeyboardInterrupt):
        sys.stderr.write(f"awqscope: {address} (Ctrl-C ends it)\n")
        server.run()
