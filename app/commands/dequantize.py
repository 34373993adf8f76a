"""`awqscope dequantize`: a quantized checkpoint as a plain model."""

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from awqscope.app.command_line.common import examples, refuse_run, warn_of_code


@examples(
    "awqscope dequantize reports/my-model/checkpoint --out ./plain",
    "awqscope dequantize my-model.Q4_K_M.gguf --out ./plain --dtype bfloat16",
)
def dequantize(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT", help="The checkpoint: directory, GGUF file, or hub id."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Directory to write; must not exist."),
    ],
    dtype: Annotated[
        str,
        typer.Option(
            metavar="TYPE",
            help="Type to store: float16, bfloat16, float32, or auto for the one that the "
            "checkpoint names (of a GGUF file float16).",
        ),
    ] = "auto",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python that comes with the model.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a quantized checkpoint out as a plain model directory.

    Every packed weight becomes the number that it stands for, so that tools which read no quantized
    format, or not this one, take it. The size is a plain model's; the quality stays the quantized
    one's. CHECKPOINT is anything that `awqscope compare` reads, the checkpoint of a run included.
    Linears that a server has fused become the model's own, also where nothing is quantized.
    """
    refuse_run(checkpoint)
    warn_of_code(trust_remote_code, checkpoint)
    from awqscope.app.terminal.progress import show_progress
    from awqscope.app.words.compared.comparison import name_packed
    from awqscope.diagnose.proof.plain_card import Dequantized, write_plain_card
    from awqscope.mixedprec.foreign.dequantize import Written, choose_stored, write_plain
    from awqscope.mixedprec.foreign.opening import open_alone
    from awqscope.mixedprec.words import write_size

    candidate = open_alone(checkpoint, trust_remote_code=trust_remote_code)
    widths = {str(bits): count for bits, count in candidate.count_widths().items()}
    stored = choose_stored(dtype, candidate)

    def describe(written: Written) -> Dequantized:
        return Dequantized(
            source=checkpoint,
            hub_id=candidate.hub_id,
            architecture=candidate.config.model_type,
            kind=name_packed(candidate.method, widths),
            dtype=stored,
            bytes=written.bytes,
            parameters=written.parameters,
            version=version("awqscope"),
            quantized=candidate.is_quantized,
        )

    def write_card(written: Written) -> str:
        card = candidate.path / "README.md"
        found = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
        return write_plain_card(describe(written), found)

    with show_progress() as on_progress:
        written = write_plain(
            out,
            candidate,
            stored,
            write_card,
            on_parameter=lambda done, total: on_progress("writing", done, total),
        )
    made = describe(written)
    if as_json:
        print(json.dumps({"model": str(out), **asdict(made)}, indent=2))
    else:
        kind = made.kind if made.quantized else "model that a server had fused"
        print(f"{out}: {write_size(made.bytes)} ({stored}), the plain model of a {kind}")
