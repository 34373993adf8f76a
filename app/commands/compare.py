"""`awqscope compare`: a checkpoint that another tool made, block by block against its reference."""

import json
import sys
import time
from typing import Any

from awqscope.app.command_line.common import examples, read_placement, refuse_run, warn_of_code
from awqscope.app.command_line.options import read_given, takes
from awqscope.app.commands.show import print_run
from awqscope.diagnose.runs.naming import default_out
from awqscope.diagnose.runs.spec import CompareSpec


@examples(
    "awqscope compare ./my-model ./my-model-awq --valid held-out.txt",
    "awqscope compare org/model org/model-gptq --windows 64 --out reports/gptq",
)
@takes(CompareSpec)
def compare(**given: Any) -> None:
    """Measure a checkpoint that was made elsewhere, block by block.

    REFERENCE is the 16-bit model that CANDIDATE was made from. CANDIDATE is a GGUF file, a
    checkpoint of autoawq, GPTQModel, AutoRound, compressed-tensors, ModelOpt, Quark, bitsandbytes,
    MLX, HQQ or torchao, or a model that is not quantized but has other weights. The result is a run
    directory like that of `run`, without a recipe. Run again with the same options, a stopped
    comparison goes on where it was.

    SPEC is wikitext2[:SPLIT], a .txt, .jsonl or .parquet file by its name as it stands, or
    hub:NAME[:CONFIG]:SPLIT:COLUMN. SIZE is like 8GiB or 500MB.
    """
    spec, how = read_given(CompareSpec, given)
    refuse_run(spec.reference)
    refuse_run(spec.candidate)
    placement = read_placement(how.device, how.workers, how.ray)
    warn_of_code(spec.trust_remote_code, spec.reference)
    from awqscope.app.terminal.progress import list_plan, show_note, show_plan, show_progress
    from awqscope.diagnose.stages.comparison import plan_comparison, run_comparison

    out = how.out or default_out(spec.candidate)
    if how.plan:
        found = plan_comparison(spec, out, placement, show_note)
        print(json.dumps(found.to_json(), indent=2) if how.as_json else "\n".join(list_plan(found)))
        return
    began = time.monotonic()
    with show_progress() as on_progress:
        run = run_comparison(spec, out, on_progress, placement, show_plan, show_note)
    sys.stderr.write(f"done in {time.monotonic() - began:.0f} s\n")
    print_run(run.path, how.as_json)
