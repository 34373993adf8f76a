"""`awqscope compare`: a checkpoint that another tool made, block by block against its reference."""

import json
import sys
import time
from typing import Annotated

import typer

from awqscope.app.commands.common import examples, read_placement, refuse_run, warn_of_code
from awqscope.app.commands.options import (
    ChunkWindowsOption,
    DeltaPplOption,
    DeviceOption,
    JsonOption,
    MaxMemoryOption,
    OutOption,
    RatioOption,
    RayOption,
    SeedOption,
    SeqLenOption,
    TopKOption,
    TrustOption,
    ValidOption,
    WindowsOption,
    WorkersOption,
    ZOption,
)
from awqscope.app.commands.show import print_run
from awqscope.app.words.amounts import parse_bytes
from awqscope.diagnose.runs.naming import default_out
from awqscope.diagnose.runs.spec import MAX_MEMORY, VALID, RunSpec


@examples(
    "awqscope compare ./my-model ./my-model-awq --valid held-out.txt",
    "awqscope compare org/model org/model-gptq --windows 64 --out reports/gptq",
)
def compare(
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="The 16-bit model: directory or hub id.")
    ],
    candidate: Annotated[
        str, typer.Argument(metavar="CANDIDATE", help="The checkpoint: directory or hub id.")
    ],
    valid: ValidOption = [VALID],
    seq_len: SeqLenOption = None,
    windows: WindowsOption = None,
    z: ZOption = RunSpec.z,
    ratio: RatioOption = RunSpec.ratio,
    delta_ppl: DeltaPplOption = None,
    top_k: TopKOption = None,
    out: OutOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    ray: RayOption = None,
    max_memory: MaxMemoryOption = MAX_MEMORY,
    chunk_windows: ChunkWindowsOption = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print memory, chunks, passes and time, and stop.")
    ] = False,
    seed: SeedOption = RunSpec.seed,
    trust_remote_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a checkpoint that was made elsewhere, block by block.

    REFERENCE is the 16-bit model that CANDIDATE was made from. CANDIDATE is a checkpoint of autoawq
    (GEMM), GPTQ, compressed-tensors (pack-quantized), or one that is not quantized but has other
    weights. The result is a run directory like that of `run`, without a recipe. Run again with the
    same options, a stopped comparison goes on where it was.

    SPEC is wikitext2[:SPLIT], a .txt, .jsonl or .parquet file by its name as it stands, or
    hub:NAME[:CONFIG]:SPLIT:COLUMN. SIZE is like 8GiB or 500MB.
    """
    from awqscope.diagnose.runs.compare_spec import CompareSpec

    refuse_run(reference)
    refuse_run(candidate)
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
    from awqscope.app.terminal.progress import list_plan, show_note, show_plan, show_progress
    from awqscope.diagnose.stages.comparison import plan_comparison, run_comparison

    out = out or default_out(candidate)
    if plan:
        found = plan_comparison(spec, out, placement, show_note)
        print(json.dumps(found.to_json(), indent=2) if as_json else "\n".join(list_plan(found)))
        return
    began = time.monotonic()
    with show_progress() as on_progress:
        run = run_comparison(spec, out, on_progress, placement, show_plan, show_note)
    sys.stderr.write(f"done in {time.monotonic() - began:.0f} s\n")
    print_run(run.path, as_json)
