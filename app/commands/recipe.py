"""`awqscope recipe`: a recipe for any budget, beside its rivals, and in other tools' dialects."""

import difflib
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from awqscope.app.command_line.common import (
    STDOUT,
    begin_computing,
    check_output,
    examples,
    warn_of_type,
    write_output,
)
from awqscope.app.command_line.options import BUDGET, MovedModelOption, OptionalRunArgument
from awqscope.diagnose.options.amounts import parse_bytes, parse_share
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.baselines import Contestant, predict_contest
from awqscope.mixedprec.scheme import (
    Grouped,
    Width,
    in_own_groups,
    list_quantized,
    parse_width,
    sort_widths,
)

if TYPE_CHECKING:
    from awqscope.diagnose.runs.directory import RunDirectory
    from awqscope.diagnose.runs.spec import RunSpec
    from awqscope.diagnose.trials.course import Course
    from awqscope.mixedprec.recipes.recipe import Recipe
    from awqscope.mixedprec.recipes.scores import Scores

FUSING = "vLLM and SGLang"
# Formats and servers that people name, and the tool that writes what they read.
READERS = {"gguf": "llama.cpp", "mlx": "mlx-lm", "vllm": "llm-compressor", "gptq": "gptqmodel"}


@examples(
    "awqscope recipe reports/my-model --target-bits 4.5 -o best.json",
    "awqscope recipe reports/my-model --max-bytes 4.2GB --verify",
    "awqscope recipe reports/my-model --min-recovery 95% --emit llm-compressor",
    "awqscope recipe reports/my-model --options 4,4x32,8 --target-bits 4.5",
)
def recipe(
    path: OptionalRunArgument = None,
    flagged: Annotated[
        bool,
        typer.Option(
            "--flagged",
            rich_help_panel=BUDGET,
            help="The run's own recipe: flagged units promoted.",
        ),
    ] = False,
    target_bits: Annotated[
        float | None,
        typer.Option(
            metavar="BITS",
            rich_help_panel=BUDGET,
            help="Least KL at so many bits per weight, scales and zero points counted.",
        ),
    ] = None,
    max_bytes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            rich_help_panel=BUDGET,
            help="Least KL within this size of all tensors, such as 4.2GB.",
        ),
    ] = None,
    min_recovery: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            rich_help_panel=BUDGET,
            help="Least size that gives back this share of the lost KL: 95% or 0.95.",
        ),
    ] = None,
    options: Annotated[
        str | None,
        typer.Option(
            "--options",
            "--widths",
            metavar="N,NxG",
            help="What a unit may be: bits, or bits in groups of another size, such as "
            "4,4x64,4x32,8. Groups are searched and scored once. [default: all widths of the run]",
        ),
    ] = None,
    split_fused: Annotated[
        bool,
        typer.Option(
            "--split-fused",
            help=f"Every linear on its own, for engines that do not fuse: {FUSING} refuse it.",
        ),
    ] = False,
    refine: Annotated[
        bool, typer.Option("--refine", help="Better it by swaps measured in the quantized model.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Measure it, and cheap recipes of equal bytes beside it."),
    ] = False,
    model: MovedModelOption = None,
    emit: Annotated[
        str | None,
        typer.Option(metavar="TOOL", help="Write it for another tool; --emit list names them."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write the recipe (or the dialect) to this file; - is stdout.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the recipe as JSON, with its rivals.")
    ] = False,
) -> None:
    """Choose widths for a budget from a finished run's scores.

    The least damage in a size, or the least size for a recovery; without a budget the run's own
    recipe. Prints what is predicted and how cheap recipes of equal bytes compare; -o keeps the
    recipe for `requantize`. With --verify all are measured on the run's text (and kept in
    RUN/races/); with --refine alone nothing is kept in RUN.

    Groups of other sizes than the run's are searched and estimated when --options first names them
    (kept in RUN/awq/gN/ and RUN/groups.parquet). With --verify the best recipe in one size of
    groups is measured beside one in several, and given instead where it does better.
    """
    from awqscope.app.terminal.progress import show_progress
    from awqscope.app.terminal.recipe import print_recipe
    from awqscope.diagnose.runs.directory import RunDirectory
    from awqscope.diagnose.runs.scores import add_groups, read_scores, read_squared_errors
    from awqscope.mixedprec.recipes.baselines import list_baselines
    from awqscope.mixedprec.recipes.recipe import recipe_json, save_recipe
    from awqscope.mixedprec.recipes.solver import limit_widths, unit_room

    if emit == "list":
        _list_dialects()
        return
    if path is None:
        raise InputError("no run was given", "awqscope recipe RUN")
    if emit and as_json:
        raise InputError(
            "--emit prints a recipe as another tool has it, and --json as awqscope has it",
            "leave one of them out",
        )
    _check_dialect(emit)
    if out is not None:
        check_output(out)
    budget = {
        "target_bits": target_bits,
        "max_bytes": None if max_bytes is None else parse_bytes(max_bytes, "size"),
        "min_recovery": None if min_recovery is None else parse_share(min_recovery),
    }
    asked: dict[str, Any] = {name: value for name, value in budget.items() if value is not None}
    if len(asked) + flagged > 1:
        raise InputError(
            "a recipe has one budget",
            "give one of --flagged, --target-bits, --max-bytes and --min-recovery",
        )
    if refine and target_bits is None and max_bytes is None:
        raise InputError(
            "--refine betters a recipe within a size", "give --target-bits or --max-bytes with it"
        )
    if options is not None and not asked:
        raise InputError("--options is for a budget", "give --target-bits or another with it")
    run = RunDirectory(path)
    record = run.read_searched()
    spec, family = record.spec, record.source.architecture
    if emit:
        from awqscope.mixedprec.recipes.emitters import check_family

        check_family(emit, family, spec.schemes.values())
    scores = read_scores(path, split_fused=split_fused)
    allowed = None if options is None else _parse_options(options, spec)
    # A recipe that was put in the place of the run's own may have groups of its own.
    named = allowed if asked else _read_own(run).widths.values()
    groups = [width for width in list_quantized(named or ()) if isinstance(width, Grouped)]
    if groups and split_fused:
        raise InputError(
            "linears on their own are not scored in other groups", "leave out --split-fused"
        )
    if allowed is not None:
        # Refused before anything is searched.
        limit_widths(scores, [width for width in allowed if width not in groups])
    if verify:
        _check_races(run)
    course = _score(run, groups, model)
    scores = add_groups(run, scores, groups)
    if allowed is not None:
        scores = limit_widths(scores, allowed)
    chosen = _choose(run, scores, asked)
    room = scores.unit_bytes(chosen.widths)
    if min_recovery is None and asked:
        room = unit_room(scores, **asked)
    contestants: list[Contestant] = []
    with show_progress() as on_progress:
        if refine or verify:
            from awqscope.diagnose.trials.contest import better, hold_contest
            from awqscope.diagnose.trials.course import open_course

            begin_computing()
            course = course or open_course(run, model)
        if course and refine:
            chosen = better(course, scores, chosen, room, on_progress)
        baselines = list_baselines(scores, room, read_squared_errors(path, scores))
        if course and verify:
            chosen, contestants = hold_contest(course, scores, chosen, baselines, room, on_progress)
    if not contestants:
        contestants = predict_contest(scores, chosen.widths, baselines)
    chosen = replace(
        chosen,
        provenance={
            **chosen.provenance,
            "run": run.path.resolve().name,
            "split_fused": split_fused,
            "source_sha256": dict(record.source.hashes),
            "rivals": [asdict(contestant) for contestant in contestants],
        },
    )
    warn_of_type(record)
    if verify:
        name = "-".join(f"{key}-{value:.15g}" for key, value in asked.items()) or "flagged"
        name += "" if allowed is None else f"-widths-{'-'.join(map(str, allowed))}"
        name += "-split" * split_fused + "-refined" * refine
        save_recipe(run.path / "races" / f"{name}.json", chosen)
    text = json.dumps(recipe_json(chosen), indent=2, ensure_ascii=False)
    if emit:
        from awqscope.mixedprec.recipes.emitters import emit as write_dialect

        text = write_dialect(emit, chosen, spec.schemes_at(chosen.widths.values()), family)
    text = text.rstrip("\n") + "\n"
    if out not in (None, STDOUT):
        write_output(out, text)
    if as_json or out == STDOUT or (emit and out is None):
        write_output(STDOUT, text)
        return
    print_recipe(scores, chosen, contestants)


def _list_dialects() -> None:
    from awqscope.mixedprec.recipes.emitters import EMITTERS

    for name, emitter in EMITTERS.items():
        print(f"{name:16}{emitter.purpose}")


def _check_dialect(emit: str | None) -> None:
    """InputError for a dialect that is not there: before anything is measured."""
    from awqscope.mixedprec.recipes.emitters import EMITTERS

    if emit is not None and emit not in EMITTERS:
        nearest = difflib.get_close_matches(emit.lower(), [*EMITTERS, *READERS], n=1)
        meant = READERS.get(nearest[0], nearest[0]) if nearest else None
        known = f"use one of {', '.join(EMITTERS)}"
        raise InputError(
            f"nothing emits {emit!r}", f"did you mean {meant}? {known}" if meant else known
        )


def _check_races(run: "RunDirectory") -> None:
    """InputError where the run cannot keep what will be measured: before it is."""
    folder = run.path / "races"
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror})", "copy the run to where it can"
        ) from error


def _score(run: "RunDirectory", groups: list[Grouped], model: str | None) -> "Course | None":
    """Score units at those of `groups` that the run has no scores of; what was opened for it."""
    from awqscope.app.terminal.progress import show_progress
    from awqscope.diagnose.runs.scores import find_unscored

    unscored = find_unscored(run, groups)
    if not unscored:
        return None
    from awqscope.diagnose.trials.course import open_course
    from awqscope.diagnose.trials.groups import score_groups

    begin_computing()
    course = open_course(run, model)
    with show_progress() as on_progress:
        score_groups(course, unscored, on_progress)
    return course


def _choose(run: "RunDirectory", scores: "Scores", asked: dict[str, Any]) -> "Recipe":
    """The recipe for what was asked; the run's own where nothing was."""
    from awqscope.mixedprec.recipes.solver import recipe_of, solve

    if asked:
        return solve(scores, **asked)
    own = _read_own(run)
    of_linears = own.linear_widths()
    widths = {unit.name: of_linears[unit.linears[0]] for unit in scores.units}
    return recipe_of(scores, widths, kind=own.kind, provenance=own.provenance)


def _read_own(run: "RunDirectory") -> "Recipe":
    """The run's own recipe, its widths as the run has them."""
    from awqscope.mixedprec.recipes.recipe import load_recipe

    group_size = run.read_searched().spec.low.group_size
    return load_recipe(run.path / "recipe.json").in_own_groups(group_size)


def _parse_options(text: str, spec: "RunSpec") -> list[Width]:
    """The widths that units may have, as the run has them."""
    own = spec.low.group_size
    try:
        found = sort_widths(in_own_groups(parse_width(part), own) for part in text.split(","))
    except InputError as error:
        raise InputError(
            f"{text!r} is no list of widths ({error.what})", "give it like 4,8 or 4,4x64,8"
        ) from error
    spec.schemes_at(width for width in found if isinstance(width, Grouped))
    return found
