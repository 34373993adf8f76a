"""The options that say where a run is carried out and what is printed: none decides a number."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from awqscope.diagnose.options.option import MACHINE, MOST, RESULT, Options, Shown


class Execution(Options):
    """The options of `run` and `compare` that say where one is carried out, and what is shown."""

    out: Annotated[
        Path | None,
        Field(description="Run directory."),
        Shown(metavar="DIR", group=RESULT, unset="reports/NAME", flags=("--out", "-o")),
    ] = None
    device: Annotated[
        str,
        Field(
            description="cpu, cuda (all there are), or cuda:N[,cuda:M]; several share the work. "
            "auto is cuda where there is any; with --ray, auto, cpu or cuda of the cluster's nodes."
        ),
        Shown(
            label="Device",
            hint="auto, cpu, cuda (all there are) or cuda:N[,cuda:M].",
            metavar="DEVICE",
            group=MACHINE,
        ),
    ] = "auto"
    workers: Annotated[
        int | None,
        Field(
            ge=1,
            le=MOST,
            description="Processes that share the work on the CPU; with --ray, tasks at once.",
        ),
        Shown(
            label="Workers",
            hint="Processes that share the work on the CPU. Left empty: one.",
            metavar="N",
            group=MACHINE,
            unit="processes",
        ),
    ] = None
    ray: Annotated[
        str | None,
        Field(
            description="Share the work through Ray: HOST:PORT or auto to join a cluster, local to "
            "start one."
        ),
        Shown(metavar="ADDRESS", group=MACHINE),
    ] = None
    plan: Annotated[
        bool,
        Field(description="Print memory, chunks, passes and time, and stop."),
        Shown(group=MACHINE, flags=("--plan",)),
    ] = False
    as_json: Annotated[
        bool,
        Field(description="Print the headline numbers as JSON."),
        Shown(group=RESULT, flags=("--json",)),
    ] = False
