"""`awqscope check`: which readers load a checkpoint, here and elsewhere."""

import json
import shlex
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from awqscope.app.command_line.common import examples
from awqscope.mixedprec.errors import InputError


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
        says_quantized,
    )
    from awqscope.mixedprec.checkpoints.serving import LOADS
    from awqscope.mixedprec.checkpoints.writer import examine_in_tgi, examine_serving
    from awqscope.mixedprec.foreign.opening import open_alone

    if not says_quantized(checkpoint):
        plain = open_alone(str(checkpoint))
        if plain.fused and not plain.is_quantized:
            raise InputError(
                f"{checkpoint} is not quantized, and holds {plain.fused[0]} as a server has fused "
                "it: transformers fills the linears that it lacks with random values",
                f"awqscope dequantize {shlex.quote(str(checkpoint))} --out ./plain writes them",
            )
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
