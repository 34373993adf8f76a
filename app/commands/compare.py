"""`awqscope compare`: a checkpoint that another tool made, block by block against its reference."""

import json
import sys
import time
from typing import Annotated

import typer

from app.commands.common import (
    ChunkWindowsOption,
    DeviceOption,
    JsonOption,
    MaxMemoryOption,
    OutOption,
    RayOption,
    SeedOption,
    TrustOption,
    WorkersOption,
    default_out,
    parse_bytes,
    read_placement,
    warn_of_code,
)
from app.commands.show import print_run


def compare(
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="The 16-bit model: directory or hub id.")
    ],
    candidate: Annotated[
        str, typer.Argument(metavar="CANDIDATE", help="The checkpoint: directory or hub id.")
    ],
    valid: Annotated[
        list[str], typer.Option(help="Text to measure on (SPEC); repeatable, each is a slice.")
    ] = ["wikitext2:test"],
    seq_len: Annotated[
        int | None, typer.Option(help="Window of the PPL. [default: 2048 or the model's maximum]")
    ] = None,
    windows: Annotated[
        int | None, typer.Option(help="Windows to measure, spread over the text. [default: all]")
    ] = None,
    z: Annotated[float, typer.Option(help="Robust z-score from which a block is flagged.")] = 3.5,
    ratio: Annotated[
        float, typer.Option(help="... if its KL also is so many times the other blocks' median.")
    ] = 3.0,
    delta_ppl: Annotated[
        float | None, typer.Option(help="Flag any block whose ΔPPL alone is above this.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Flag the k worst blocks instead of outliers.")
    ] = None,
    out: OutOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    ray: RayOption = None,
    max_memory: MaxMemoryOption = "8GiB",
    chunk_windows: ChunkWindowsOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print memory, chunks, passes and time, and stop.")
    ] = False,
    seed: SeedOption = 0,
    trust_remote_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a checkpoint that was made elsewhere, block by block.

    REFERENCE is the 16-bit model that CANDIDATE was made from. CANDIDATE is a checkpoint of autoawq
    (GEMM), GPTQ, compressed-tensors (pack-quantized), or one that is not quantized but has other
    weights. The result is a run directory, as of `run`, without a recipe. Run again with the same
    options, a stopped comparison goes on where it was.

    SPEC is wikitext2[:SPLIT], a .txt, .jsonl or .parquet file, or hub:NAME[:CONFIG]:SPLIT:COLUMN.
    """
    from diagnose.compare_spec import CompareSpec

    placement = read_placement(device, workers, ray)
    spec = CompareSpec(
        reference=reference,
        candidate=candidate,
        valid=valid[0] if len(valid) == 1 else tuple(valid),
        seq_len=seq_len,
        windows=windows,
        z=z,
        ratio=ratio,
        delta_ppl=delta_ppl,
        top_k=top_k,
        seed=seed,
        max_memory=parse_bytes(max_memory),
        chunk_windows=chunk_windows,
        trust_remote_code=trust_remote_code,
    )
    warn_of_code(trust_remote_code, reference)
    from app.progress import list_plan, show_plan, show_progress
    from diagnose.comparison import plan_comparison, run_comparison

    out = out or default_out(candidate)
    if plan:
        found = plan_comparison(spec, out, placement)
        print(json.dumps(found.to_json(), indent=2) if as_json else "\n".join(list_plan(found)))
        return
    began = time.monotonic()
    with show_progress() as on_progress:
        run = run_comparison(spec, out, on_progress, placement, show_plan)
    sys.stderr.write(f"done in {time.monotonic() - began:.0f} s\n")
    print_run(run.path, as_json)
