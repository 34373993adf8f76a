"""Options and arguments that several commands have, in the groups of their help."""

from pathlib import Path
from typing import Annotated

import typer

# The groups of options in a command's help.
TEXTS, WIDTHS, FLAGGING = "Texts", "Widths", "What is flagged"
MACHINE, RESULT, BUDGET = "Machine", "Result", "Budget, one of"

OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        rich_help_panel=RESULT,
        help="Run directory. [default: reports/NAME]",
    ),
]
MaxMemoryOption = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        rich_help_panel=MACHINE,
        help="What a run may hold, of the host and of a device; streams that do not fit go to "
        "files in the run directory. Workers share it.",
    ),
]
ChunkWindowsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        rich_help_panel=MACHINE,
        help="Windows measured at a time, at most: a killed run loses what it has of them. "
        "[default: as many as memory takes]",
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        rich_help_panel=MACHINE,
        help="Run Python that comes with the model, with all that you may do yourself.",
    ),
]
DtypeOption = Annotated[
    str,
    typer.Option(
        metavar="TYPE",
        rich_help_panel=WIDTHS,
        help="Type that the checkpoint stores and is served in: float16, bfloat16, or auto for the "
        "one that the model comes in. bfloat16 holds what passes float16's 65,504.",
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        metavar="N", rich_help_panel=RESULT, help="Seed of the bootstrap and of sampled tokens."
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", rich_help_panel=RESULT, help="Print the headline numbers as JSON."),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        rich_help_panel=MACHINE,
        help="cpu, cuda (all there are), or cuda:N[,cuda:M]; several share the work. auto is cuda "
        "where there is any; with --ray, auto, cpu or cuda of the cluster's nodes.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        rich_help_panel=MACHINE,
        help="Processes that share the work on the CPU; with --ray, tasks at once.",
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        rich_help_panel=MACHINE,
        help="Share the work through Ray: HOST:PORT or auto to join a cluster, local to start one.",
    ),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
ValidOption = Annotated[
    list[str],
    typer.Option(
        metavar="SPEC",
        rich_help_panel=TEXTS,
        help="Text to measure on; repeatable, each is a slice.",
    ),
]
SeqLenOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        rich_help_panel=TEXTS,
        help="Window of the PPL. [default: 2048 or the model's maximum]",
    ),
]
WindowsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        rich_help_panel=TEXTS,
        help="Windows to measure, spread over the text. [default: all]",
    ),
]
ZOption = Annotated[
    float,
    typer.Option(
        metavar="X",
        rich_help_panel=FLAGGING,
        help="Robust z-score from which a block is flagged.",
    ),
]
RatioOption = Annotated[
    float,
    typer.Option(
        metavar="X",
        rich_help_panel=FLAGGING,
        help="... if its KL also is so many times the other blocks' median.",
    ),
]
DeltaPplOption = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        rich_help_panel=FLAGGING,
        help="Flag any block whose ΔPPL alone is above this.",
    ),
]
TopKOption = Annotated[
    int | None,
    typer.Option(
        metavar="K",
        rich_help_panel=FLAGGING,
        help="Flag the k worst blocks instead of outliers.",
    ),
]
MovedModelOption = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Where the run's model is now, if it has moved."),
]
