"""What an unfinished run has left, checked before it continues: a stage whose files are damaged or
gone is done again, and with it the stages that write into the same files."""

from collections.abc import Callable, Mapping
from functools import partial

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.mixedprec.awq.choices import is_complete, search_path
from awqscope.mixedprec.checkpoints.reader import open_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.recipe import load_recipe

# Tables, arrays and whatever else a stage leaves for the later ones.
TABLES: Mapping[str, tuple[str, ...]] = {
    "sweep": ("blocks", "tokens", "activations", "ranges", "weights"),
    "estimate": ("units", "linears"),
    "exact": ("units", "promotions"),
    "proof": ("tokens",),
}
ARRAYS: Mapping[str, tuple[str, ...]] = {
    "sweep": ("activations.safetensors", "work/sweep.safetensors"),
}
# Stages that change what an earlier one wrote.
REPEATED_WITH: Mapping[str, tuple[str, ...]] = {
    "sweep": ("proof",),
    "estimate": ("exact",),
    "requantize": ("proof",),
}


def _has_searches(run: RunDirectory) -> bool:
    record = run.read_searched()
    blocks, widths = range(record.source.blocks), record.spec.schemes
    return all(is_complete(search_path(run.searches, b, w)) for b in blocks for w in widths)


def _reads(read: Callable[[], object]) -> bool:
    try:
        return read() is not None
    except InputError:
        return False


OTHERS: Mapping[str, Callable[[RunDirectory], bool]] = {
    "search": _has_searches,
    "recipe": lambda run: _reads(lambda: load_recipe(run.path / "recipe.json")),
    "requantize": lambda run: _reads(lambda: open_checkpoint(run.checkpoint)),
    "proof": lambda run: _reads(lambda: run.read_json("proof").get("passed")),
}


def is_intact(run: RunDirectory, stage: str) -> bool:
    """Whether what a stage left is there and can be read."""
    return (
        all(_reads(partial(run.read_table, name)) for name in TABLES.get(stage, ()))
        and all(run.holds(name) for name in ARRAYS.get(stage, ()))
        and (stage not in OTHERS or OTHERS[stage](run))
    )


def repeat_damaged(run: RunDirectory) -> list[str]:
    """Take back that a stage is done where it is not intact; the stages taken back."""
    stages = run.read().stages
    done = [stage for stage, entry in stages.items() if entry.state == "done"]
    damaged = [stage for stage in done if not is_intact(run, stage)]
    again = {*damaged, *(other for stage in damaged for other in REPEATED_WITH.get(stage, ()))}
    again &= set(done)
    if again:
        run.update(stages={stage: entry for stage, entry in stages.items() if stage not in again})
    return sorted(again)
