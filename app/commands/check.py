"""`awqscope check`: which readers load a checkpoint, here and elsewhere."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from awqscope.app.command_line.common import examples


@examples("awqscope check reports/my-model/checkpoint", "awqscope check ./checkpoint --json")
def check(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Directory of a quantized checkpoint.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say who loads a checkpoint: what is installed beside awqscope, and other readers.

    It is for checkpoints that awqscope writes, and others of their two formats. No weights are
    read: config.json and the files' headers are held against the rules by which vLLM, SGLang,
    transformers and TGI match and fuse linears, and a table of what was seen says which reader
    takes checkpoints of this kind in which versions. The exit code is 1 where the checkpoint breaks
    a rule of one of the first three, or a reader that is installed here refuses it or loads it
    wrongly.
    """
    from awqscope.app.terminal.destinations import write_destinations
    from awqscope.mixedprec.checkpoints.destinations import (
        DESTINATIONS,
        judge_installed,
        list_destinations,
        read_kind,
    )
    from awqscope.mixedprec.checkpoints.serving import LOADS
    from awqscope.mixedprec.checkpoints.writer import examine_in_tgi, examine_serving
    from awqscope.mixedprec.foreign.opening import open_alone

    kind = read_kind(checkpoint)
    candidate = open_alone(str(checkpoint))
    serving = examine_serving(candidate.catalogue, candidate)
    tgi = examine_in_tgi(candidate.catalogue, candidate)
    versions = {}
    for package in {row.package for row in DESTINATIONS}:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    here = list(judge_installed(kind, versions))
    everywhere = list(list_destinations(kind))
    if as_json:
        found = {
            "checkpoint": str(checkpoint),
            "kind": kind.to_json(),
            "serving": serving.to_json(),
            "tgi": tgi.to_json(),
            "installed": [{**row.to_json(), "version": number} for row, number in here],
            "readers": [row.to_json() for row in everywhere],
        }
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(write_destinations(checkpoint, kind, (serving, tgi), here, everywhere)))
    broken = any(remark.effect for remark in serving.remarks)
    if broken or any(row.outcome != LOADS for row, _ in here):
        raise typer.Exit(1)
