"""The command line: `awqscope run`, `demo`, `show`, `requantize`, `dashboard`.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 the proof failed, 2 usage
or input that cannot be used (one line with the remedy), 130 interrupted.
"""

import functools
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mixedprec.errors import InputError

INPUT_ERROR = 2
INTERRUPTED = 130
DEVICES = ("auto", "cpu")
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Which layers did 4-bit AWQ hurt, how surely, and what is the cheapest mixed 4/8-bit "
    "checkpoint that repairs it?",
)

OutOption = Annotated[
    Path | None, typer.Option("--out", help="Run directory. [default: reports/NAME]")
]
SeedOption = Annotated[int, typer.Option(help="Seed of the bootstrap and of sampled tokens.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the headline numbers as JSON.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command end with one line and the right exit code where the user can mend it."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except InputError as error:
            sys.stderr.write(f"awqscope: {' '.join(str(error).split())}\n")
            raise typer.Exit(INPUT_ERROR) from error
        except KeyboardInterrupt as error:
            what_now = str(error) or "the same command again goes on from here"
            sys.stderr.write(f"awqscope: interrupted; {what_now}\n")
            raise typer.Exit(INTERRUPTED) from error

    return wrapped


def parse_bytes(text: str) -> int:
    """`8GiB`, `500MB` or a number of bytes. InputError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if not match:
        raise InputError(f"{text!r} is no amount of memory", "give it like 8GiB or 500MB")
    number, unit, binary = match.groups()
    power = UNITS[unit.upper()]
    if binary:
        power = 1024 ** ("", "K", "M", "G", "T").index(unit.upper())
    return int(float(number) * power)


def default_out(model: str) -> Path:
    """Where a run of `model` goes unless told otherwise."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rstrip("/").rpartition("/")[2]).strip("-.")
    return Path("reports") / (name or "run")


def _carry_out(spec: Any, out: Path, as_json: bool) -> None:
    from app.progress import show_progress
    from diagnose.pipeline import run_pipeline

    began = time.monotonic()
    with show_progress() as on_progress:
        run = run_pipeline(spec, out, on_progress)
    sys.stderr.write(f"done in {time.monotonic() - began:.0f} s\n")
    _print_run(run.path, as_json)
    if run.read()["headline"].get("proved") is False:
        raise typer.Exit(1)


def _print_run(path: Path, as_json: bool) -> None:
    from app.show import show_run
    from diagnose.rundir import RunDirectory

    run = RunDirectory(path)
    if as_json:
        print(json.dumps(run.read()["headline"], indent=2))
        return
    width = None if sys.stdout.isatty() else 150
    show_run(run, Console(width=width, highlight=False, soft_wrap=False))


@app.command()
@reports_errors
def run(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model directory, or id on the Hugging Face hub.")
    ],
    calib: Annotated[
        str, typer.Option(help="Text that AWQ calibrates on (SPEC).")
    ] = "wikitext2:train",
    valid: Annotated[str, typer.Option(help="Text to measure on (SPEC).")] = "wikitext2:test",
    bits: Annotated[int, typer.Option(help="Width of every unit that is not promoted.")] = 4,
    rescue_bits: Annotated[int, typer.Option(help="Width of promoted units (symmetric).")] = 8,
    group_size: Annotated[int, typer.Option(help="32, 64, 128, or -1 for one group a row.")] = 128,
    symmetric: Annotated[bool, typer.Option(help="No zero points at the low width.")] = False,
    seq_len: Annotated[
        int | None, typer.Option(help="Window of the PPL. [default: 2048 or the model's maximum]")
    ] = None,
    windows: Annotated[
        int | None, typer.Option(help="Windows to measure, spread over the text. [default: all]")
    ] = None,
    calib_windows: Annotated[int, typer.Option(help="Calibration windows.")] = 128,
    calib_seq_len: Annotated[int, typer.Option(help="Tokens in a calibration window.")] = 512,
    keep_fp16: Annotated[
        list[str], typer.Option(help="Unit to leave unquantized, such as 3.down; repeatable.")
    ] = [],
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
    whole_blocks: Annotated[
        bool, typer.Option(help="Promote flagged blocks whole, not their fewest units.")
    ] = False,
    verify_units: Annotated[
        int, typer.Option(help="Units measured exactly to check the estimates.")
    ] = 12,
    out: OutOption = None,
    device: Annotated[
        str, typer.Option(help="auto or cpu: it computes on the CPU so far.")
    ] = "auto",
    max_memory: Annotated[
        str, typer.Option(help="Half of it is for the streams of sweep and estimates.")
    ] = "8GiB",
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure what AWQ costs every block of MODEL, and repair what stands out.

    Ends with a mixed-width checkpoint proved from disk, in a directory with every number behind it.
    Run again with the same options, a stopped run goes on where it was.

    SPEC is wikitext2[:SPLIT], a .txt, .jsonl or .parquet file, or hub:NAME[:CONFIG]:SPLIT:COLUMN.
    """
    from diagnose.spec import RunSpec

    if device not in DEVICES:
        raise InputError(f"device {device!r} is not supported", f"use {' or '.join(DEVICES)}")
    spec = RunSpec(
        model=model,
        calib=calib,
        valid=valid,
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
    )
    _carry_out(spec, out or default_out(model), as_json)


@app.command()
@reports_errors
def demo(out: OutOption = None, seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """The same on the bundled model, which has one planted fault to find and repair."""
    from app.demo import demo_spec

    _carry_out(demo_spec(seed), out or Path("reports/demo"), as_json)


@app.command()
@reports_errors
def show(path: RunArgument, as_json: JsonOption = False) -> None:
    """Print what a run found: verdict, blocks, recipe, what was recovered at what size."""
    _print_run(path, as_json)


@app.command()
@reports_errors
def requantize(
    path: RunArgument,
    recipe: Annotated[Path, typer.Option(help="Recipe file (JSON), such as RUN/recipe.json.")],
    out: Annotated[Path, typer.Option(help="Directory for the checkpoint; must not exist.")],
    fmt: Annotated[
        str, typer.Option("--format", help="compressed-tensors, or awq (GEMM, uniform 4-bit).")
    ] = "compressed-tensors",
    model: Annotated[
        str | None, typer.Option(help="Where the run's model is now, if it has moved.")
    ] = None,
    prove: Annotated[
        bool, typer.Option("--prove", help="Measure and check it as the run's own was proved.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write the checkpoint of a recipe from a run's search results, without searching again.

    With --prove it is then measured from disk on the run's text, in another process, and every
    tensor compared with what recipe and searches say; OUT/awqscope-proof.json holds the result.
    """
    from app.progress import show_progress
    from app.verdict import write_proof
    from diagnose.proof import Subject
    from diagnose.repair import PROOF_NAME, prove_checkpoint
    from diagnose.rundir import RunDirectory
    from diagnose.spec import RunSpec
    from mixedprec.checkpoint import checkpoint_bytes, write_checkpoint
    from mixedprec.model import open_model
    from mixedprec.recipe import check_fits, load_recipe
    from mixedprec.scheme import FP16_BITS

    found = RunDirectory(path)
    spec = RunSpec.from_json(found.read()["spec"])
    if not found.is_done("search"):
        raise InputError(f"{path} has not finished its AWQ search", "finish the run first")
    if out.exists():
        raise InputError(f"{out} exists already", "choose another --out")
    wanted = load_recipe(recipe)
    if prove:
        if fmt == "awq":
            raise InputError(
                "--prove reads compressed-tensors only", "leave out --prove or --format awq"
            )
        # Its process reads both again: better refused here than once the checkpoint is written.
        if not recipe.is_file():
            raise InputError(f"{recipe} can be read only once", "give --prove a file")
        found.read_table("tokens")
    source = open_model(model or spec.model)
    if source.hash() != found.read()["source"]["hashes"]:
        raise InputError(
            f"{source.path} is not the model of {path}", "give it with --model, unchanged"
        )
    check_fits(wanted, source.family, source.blocks)
    missing = {entry.bits for entry in wanted.units} - set(spec.schemes) - {FP16_BITS}
    if missing:
        raise InputError(
            f"{path} holds no search at {min(missing)} bits",
            f"use the widths {spec.bits}, {spec.rescue_bits} and {FP16_BITS}",
        )
    proof = None
    with show_progress() as on_progress:
        write_checkpoint(
            out,
            source,
            wanted,
            found.searches,
            spec.schemes,
            fmt=fmt,
            on_block=lambda done: on_progress("writing", done, source.blocks),
        )
        if prove:
            proof = prove_checkpoint(found, Subject(str(source.path), recipe, out), on_progress)
    size = checkpoint_bytes(out)
    if as_json:
        measured = proof and {"passed": proof["passed"], **proof["measured"]}
        result = {"checkpoint": str(out), "bytes": size, "format": fmt, "proof": measured}
        print(json.dumps(result, indent=2))
    else:
        print(f"{out}: {size / 1e6:,.2f} MB ({fmt})")
        if proof:
            print(write_proof(proof, str(out / PROOF_NAME)))
    if proof and not proof["passed"]:
        raise typer.Exit(1)


@app.command()
@reports_errors
def dashboard(
    runs_dir: Annotated[
        Path, typer.Argument(metavar="[RUNS_DIR]", help="Directory that holds runs.")
    ] = Path("reports"),
    host: Annotated[str, typer.Option(help="Address to answer on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to answer on; 0 for any free one.")] = 8050,
    allow_remote: Annotated[
        bool, typer.Option(help="Allow a host that other machines can reach.")
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="AWQSCOPE_TOKEN", help="What a visitor must show; without it, others only read."
        ),
    ] = None,
    name: Annotated[
        list[str], typer.Option(help="Host name the dashboard is reached by; repeatable.")
    ] = [],
    read_only: Annotated[bool, typer.Option(help="Start and stop nothing from the pages.")] = False,
) -> None:
    """Open the web dashboard on every run in RUNS_DIR, finished or under way."""
    from app.access import decide_access
    from app.server import create_app, find_port, serve
    from app.store import Store

    if not runs_dir.is_dir():
        raise InputError(f"{runs_dir} is no directory", "give the directory that holds your runs")
    access = decide_access(
        host, allow_remote=allow_remote, token=token, names=tuple(name), read_only=read_only
    )
    port = find_port(host, port)
    shown = f"[{host}]" if ":" in host else host
    way_in = "" if token is None else "?token=…, the token you set"
    sys.stderr.write(f"awqscope: http://{shown}:{port}/{way_in} (Ctrl-C ends it)\n")
    serve(create_app(Store(runs_dir), access), host, port)


def main() -> None:
    """Entry point of the `awqscope` command."""
    app()


if __name__ == "__main__":
    main()
