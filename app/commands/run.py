"""`awqscope run` and `demo`: from a 16-bit model to a proved mixed checkpoint."""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from awqscope.app.commands.common import examples, read_placement, refuse_run, warn_of_code
from awqscope.app.commands.options import (
    FLAGGING,
    MACHINE,
    TEXTS,
    WIDTHS,
    ChunkWindowsOption,
    DeltaPplOption,
    DeviceOption,
    DtypeOption,
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
from awqscope.diagnose.runs.spec import CALIB, MAX_MEMORY, VALID, RunSpec


@examples(
    "awqscope run ./my-model --valid held-out.txt --out reports/my-model",
    "awqscope run org/model --plan",
    "awqscope run ./my-model --calib ours.jsonl --valid a.txt --valid b.txt",
)
def run(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model directory, or id on the Hugging Face hub.")
    ],
    calib: Annotated[
        str,
        typer.Option(metavar="SPEC", rich_help_panel=TEXTS, help="Text that AWQ calibrates on."),
    ] = CALIB,
    valid: ValidOption = [VALID],
    bits: Annotated[
        int,
        typer.Option(
            metavar="N", rich_help_panel=WIDTHS, help="Width of every unit that is not promoted."
        ),
    ] = RunSpec.bits,
    rescue_bits: Annotated[
        int,
        typer.Option(
            metavar="N", rich_help_panel=WIDTHS, help="Width of promoted units (symmetric)."
        ),
    ] = RunSpec.rescue_bits,
    group_size: Annotated[
        int,
        typer.Option(
            metavar="N", rich_help_panel=WIDTHS, help="32, 64, 128, or -1 for one group a row."
        ),
    ] = RunSpec.group_size,
    symmetric: Annotated[
        bool,
        typer.Option(
            rich_help_panel=WIDTHS, show_default=False, help="No zero points at the low width."
        ),
    ] = False,
    seq_len: SeqLenOption = None,
    windows: WindowsOption = None,
    calib_windows: Annotated[
        int, typer.Option(metavar="N", rich_help_panel=TEXTS, help="Calibration windows.")
    ] = RunSpec.calib_windows,
    calib_seq_len: Annotated[
        int,
        typer.Option(metavar="N", rich_help_panel=TEXTS, help="Tokens in a calibration window."),
    ] = RunSpec.calib_seq_len,
    keep_fp16: Annotated[
        list[str],
        typer.Option(
            metavar="UNIT",
            rich_help_panel=WIDTHS,
            help="Unit to leave unquantized, such as 3.down; repeatable.",
        ),
    ] = [],
    z: ZOption = RunSpec.z,
    ratio: RatioOption = RunSpec.ratio,
    delta_ppl: DeltaPplOption = None,
    top_k: TopKOption = None,
    whole_blocks: Annotated[
        bool,
        typer.Option(
            rich_help_panel=FLAGGING,
            show_default=False,
            help="Promote flagged blocks whole, not their fewest units.",
        ),
    ] = False,
    verify_units: Annotated[
        int,
        typer.Option(
            metavar="N",
            rich_help_panel=FLAGGING,
            help="Units measured exactly to check the estimates.",
        ),
    ] = RunSpec.verify_units,
    out: OutOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    ray: RayOption = None,
    max_memory: MaxMemoryOption = MAX_MEMORY,
    chunk_windows: ChunkWindowsOption = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            rich_help_panel=MACHINE,
            help="Print memory, chunks, passes and time, and stop.",
        ),
    ] = False,
    seed: SeedOption = RunSpec.seed,
    dtype: DtypeOption = "auto",
    trust_remote_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Quantize MODEL, measure every block, repair what stands out.

    Ends with a mixed-width checkpoint proved from disk, in a directory with every number behind it.
    Run again with the same options, a stopped run goes on where it was.

    SPEC is wikitext2[:SPLIT], a .txt, .jsonl or .parquet file by its name as it stands, or
    hub:NAME[:CONFIG]:SPLIT:COLUMN. SIZE is like 8GiB or 500MB.
    """

    refuse_run(model)
    placement = read_placement(device, workers, ray)
    spec = RunSpec(
        model=model,
        calib=calib,
        valid=valid[0] if len(valid) == 1 else tuple(valid),
        bits=bits,
        rescue_bits=rescue_bits,
        group_size=group_size,
        symmetric=symmetric,
        seq_len=seq_len,
        windows=windows,
        calib_windows=calib_windows,
        calib_seq_len=calib_seq_len,
        z=z,
        ratio=ratio,
        delta_ppl=delta_ppl,
        top_k=top_k,
        whole_blocks=whole_blocks,
        keep_fp16=tuple(keep_fp16),
        verify_units=verify_units,
        seed=seed,
        max_memory=parse_bytes(max_memory),
        chunk_windows=chunk_windows,
        trust_remote_code=trust_remote_code,
        dtype=dtype,
    )
    warn_of_code(trust_remote_code, model)
    if plan:
        print_plan(spec, out or default_out(model), as_json, placement)
        return
    carry_out(spec, out or default_out(model), as_json, placement)


@examples("awqscope demo", "awqscope demo --out /tmp/demo --json")
def demo(
    out: OutOption = None, seed: SeedOption = RunSpec.seed, as_json: JsonOption = False
) -> None:
    """The same on the bundled model, which has one planted fault."""
    from awqscope.app.demo import demo_spec

    placement = read_placement("auto", None, None)
    carry_out(demo_spec(seed), out or Path("reports/demo"), as_json, placement)


def print_plan(spec: Any, out: Path, as_json: bool, placement: Any) -> None:
    """Print what a run would take."""
    from awqscope.app.terminal.progress import list_plan, show_note
    from awqscope.diagnose.stages.pipeline import plan_pipeline

    found, without = plan_pipeline(spec, out, placement, show_note), spec.no_checkpoint
    if as_json:
        print(json.dumps({**found.to_json(), "no_checkpoint": without}, indent=2))
    else:
        print("\n".join(list_plan(found, without)))


def carry_out(spec: Any, out: Path, as_json: bool, placement: Any) -> None:
    from awqscope.app.terminal.progress import show_note, show_plan, show_progress
    from awqscope.diagnose.stages.pipeline import run_pipeline

    began = time.monotonic()
    with show_progress() as on_progress:
        on_plan = partial(show_plan, no_checkpoint=spec.no_checkpoint)
        run = run_pipeline(spec, out, on_progress, placement, on_plan, show_note)
    sys.stderr.write(f"done in {time.monotonic() - began:.0f} s\n")
    print_run(run.path, as_json)
    headline = run.read_searched().headline
    if headline is not None and headline.proved is False:
        raise typer.Exit(1)
