"""`awqscope requantize`: the checkpoint of a recipe, from a run's search results."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from awqscope.app.command_line.common import begin_computing, examples, read_devices, refuse_run
from awqscope.app.command_line.options import MovedModelOption, RunArgument
from awqscope.diagnose.options.amounts import parse_bytes
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.words import write_size


@examples(
    "awqscope requantize reports/my-model --recipe best.json --out ./mixed --prove",
    "awqscope requantize reports/my-model --recipe best.json --out ./a --format awq",
    "awqscope requantize reports/my-model --weights ./my-model-with-lora --out ./b",
)
def requantize(
    path: RunArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Directory for the checkpoint; must not exist."
        ),
    ],
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Recipe file (JSON). [default: RUN/recipe.json]"),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Another model of the same architecture to quantize in place of the run's, such "
            "as one with a LoRA merged into it: directory or hub id. It is searched anew.",
        ),
    ] = None,
    fmt: Annotated[
        str,
        typer.Option(
            "--format", metavar="FORMAT", help="compressed-tensors, or awq (GEMM, uniform 4-bit)."
        ),
    ] = "compressed-tensors",
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Type that it stores and is served in: float16, bfloat16, or auto for the one "
            "that the model comes in. [default: as the run]",
        ),
    ] = None,
    model: MovedModelOption = None,
    prove: Annotated[
        bool, typer.Option("--prove", help="Measure and check it as the run's own was proved.")
    ] = False,
    max_memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="What the proof, and the search of --weights, may take, like 8GiB. [default: as "
            "much as the run]",
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            metavar="DEVICE", help="With --weights, what searches: auto, cpu, cuda or cuda:N."
        ),
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write the checkpoint of a recipe, without searching again unless for other weights.

    It is checked, from config.json and the files' headers, against the rules by which vLLM, SGLang
    and transformers load it. With --prove it is then measured from disk on the run's text, in
    another process, and every tensor compared with what recipe and searches say;
    OUT/awqscope-proof.json holds the result. OUT/README.md is its model card.

    With --weights the model given there is searched on the run's calibration text, with the run's
    options, and quantized by the recipe. Its widths are then those that another model's damage
    chose: `awqscope compare` measures what they come to.
    """
    import torch

    from awqscope.app.terminal.progress import show_progress
    from awqscope.app.words.verdict import write_proof
    from awqscope.diagnose.entries.served_type import describe_type
    from awqscope.diagnose.proof.prove import Subject
    from awqscope.diagnose.runs.directory import RunDirectory
    from awqscope.diagnose.runs.scores import how_to_score
    from awqscope.diagnose.stages.repair import PROOF_NAME, prove_checkpoint, write_model_card
    from awqscope.diagnose.trials.another import open_another, search_another
    from awqscope.diagnose.trials.finished import list_unsearched, open_source
    from awqscope.mixedprec.awq.search import check_schemes
    from awqscope.mixedprec.checkpoints.serving import write_serving
    from awqscope.mixedprec.checkpoints.writer import served_dtype, write_checkpoint
    from awqscope.mixedprec.models.served import name_dtype
    from awqscope.mixedprec.recipes.recipe import check_fits, load_recipe
    from awqscope.mixedprec.scheme import write_width

    budget = None if max_memory is None else parse_bytes(max_memory)
    found = RunDirectory(path)
    spec = found.read_searched().spec
    if not found.is_done("search"):
        raise InputError(f"{path} has not finished its AWQ search", found.how_to_finish())
    if out.exists():
        raise InputError(f"{out} exists already", "choose another --out")
    recipe = recipe or path / "recipe.json"
    wanted = load_recipe(recipe).in_own_groups(spec.low.group_size)
    if weights is not None:
        refuse_run(weights)
        if prove:
            raise InputError(
                "--prove measures against the run's own model",
                f"leave it out, and give awqscope compare {weights} {out} then",
            )
    if prove:
        if fmt == "awq":
            raise InputError(
                "--prove reads compressed-tensors only", "leave out --prove or --format awq"
            )
        # Its process reads both again: better refused here than once the checkpoint is written.
        if not recipe.is_file():
            raise InputError(f"{recipe} can be read only once", "give --prove a file")
        found.read_table("tokens")
    another = None if weights is None else open_another(found, weights, model, dtype)
    source = open_source(found, model, dtype) if another is None else another.model
    if fmt == "awq" and dtype == "bfloat16":
        raise InputError(
            "autoawq's GEMM format stores float16", "leave out --dtype bfloat16 or --format awq"
        )
    check_fits(wanted, source.family, source.blocks)
    schemes = spec.schemes_at(wanted.widths.values())
    check_schemes(source, list(schemes.values()))
    missing = list_unsearched(found, spec, wanted.widths) if another is None else []
    if missing:
        raise InputError(
            f"{path} holds no search at {write_width(missing[0])}, which the recipe asks",
            how_to_score(found, missing),
        )
    proof = None
    begin_computing()
    searches, uncalibrated = found.searches, None
    with show_progress() as on_progress:
        if another is not None:
            searches = out.with_name(f".{out.name}.searches")
            uncalibrated = search_another(
                another,
                schemes,
                searches,
                partial(on_progress, "search"),
                torch.device(read_devices(device)[0]),
                budget,
            )
        written = write_checkpoint(
            out,
            source,
            wanted,
            searches,
            schemes,
            fmt=fmt,
            on_block=lambda done: on_progress("writing", done, source.blocks),
        )
        if prove:
            subject = Subject(str(source.path), recipe, out, dtype)
            proof = prove_checkpoint(found, subject, on_progress, budget)
        headline = None if another is not None else found.read_searched().headline
        largest = None if headline is None else headline.find_largest()
        kind = describe_type(name_dtype(served_dtype(source, fmt)), largest, proof).to_json()
        served = {**written.serving.to_json(), "type": kind}
        write_model_card(
            found,
            source,
            wanted,
            out,
            written.bytes,
            proof,
            served,
            fmt=fmt,
            dtype=dtype,
            requantized=True,
            weights=weights,
            uncalibrated=uncalibrated,
        )
        if another is not None:
            shutil.rmtree(searches, ignore_errors=True)
    if as_json:
        measured = proof and {
            **{key: proof[key] for key in ("passed", "reasons", "served", "instead")},
            **proof["measured"],
        }
        result = {
            "checkpoint": str(out),
            "bytes": written.bytes,
            "format": fmt,
            "serving": served,
            "proof": measured,
        }
        print(json.dumps(result, indent=2))
    else:
        print(f"{out}: {write_size(written.bytes)} ({fmt})")
        print(f"held against their rules: {write_serving(served)}")
        if proof:
            print(write_proof(proof, str(out / PROOF_NAME)))
    if proof and not proof["passed"]:
        raise typer.Exit(1)
