"""The verdict of a run in the terminal. Reads the run directory only; deciding was done before."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from awqscope.app.words.comparison import list_facts, name_uniform
from awqscope.app.words.numbers import megabytes
from awqscope.app.words.predict import quantized_units, unit_kl
from awqscope.app.words.verdict import write_kl, write_range, write_verdict
from awqscope.diagnose.runs.directory import RunDirectory, is_comparison
from awqscope.diagnose.runs.type_words import write_measured_type
from awqscope.diagnose.runs.uncalibrated import write_uncalibrated
from awqscope.mixedprec.checkpoints.serving import write_serving
from awqscope.mixedprec.models.weight_files import write_aside
from awqscope.mixedprec.ranking import as_cost
from awqscope.mixedprec.recipes.recipe import load_recipe


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _kl(value: float | None) -> str:
    return "–" if value is None else write_kl(value, 5)


def headline_table(headline: Mapping[str, Any], uniform: str, *, mixed: bool = True) -> Table:
    """Reference, uniform (by its name) and mixed side by side; the last where there can be one."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    names = ("reference", "uniform", "mixed")[: 3 if mixed else 2]
    table.add_column("")
    for name in ("16-bit", uniform, "mixed")[: len(names)]:
        table.add_column(name, justify="right")

    def add(label: str, *cells: str) -> None:
        table.add_row(label, *cells[: len(names)])

    ppl, kl, size = headline["ppl"], headline["kl"], headline["bytes"]
    delta = headline["delta_ppl"]

    def interval(values: Sequence[float] | None) -> str:
        return "–" if values is None else f"{values[0]:+.3f} [{values[1]:+.3f}, {values[2]:+.3f}]"

    add("perplexity", *[_number(ppl[n], ".3f") for n in names])
    add("ΔPPL [95%]", "", interval(delta["uniform"]), interval(delta["mixed"]))
    add("KL, mean (nats a token)", "", *[_kl(kl[n]) for n in ("uniform", "mixed")])
    p999 = headline["kl_p999"]
    add("KL, p99.9", "", _number(p999["uniform"], ".3f"), _number(p999["mixed"], ".3f"))
    top = headline["top1_agreement"]
    add("same top token", "", _number(top["uniform"], ".1%"), _number(top["mixed"], ".1%"))
    add("all weights", *[megabytes(size[n]) for n in names])
    return table


def blocks_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line a block: isolated KL with its interval, ΔPPL, and what restoring it gives back."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("block", justify="right")
    for name in ("KL alone [95%]", "", "ΔPPL alone", "KL up to here", "KL if restored"):
        table.add_column(name, justify="left" if name == "" else "right")
    table.add_column("verdict")

    views = {(row["block"], row["view"]): row for row in rows}
    isolated = [row for row in rows if row["view"] == "isolated"]
    # A block without a number gets no bar, and takes none from the others.
    largest = max((row["kl"] for row in isolated if math.isfinite(row["kl"])), default=0.0)
    for row in isolated:
        block = row["block"]
        drawn = largest > 0 and math.isfinite(row["kl"])
        bar = "█" * max(row["kl"] > 0, round(12 * row["kl"] / largest)) if drawn else ""
        style = "bold" if row["flagged"] else ""
        table.add_row(
            str(block),
            f"{_kl(row['kl'])} [{_kl(row['kl_low'])}, {_kl(row['kl_high'])}]",
            Text(bar, style="dark_orange" if row["flagged"] else "blue"),
            f"{row['delta_ppl']:+.3f}",
            _kl(views[block, "cumulative"]["kl"]),
            _kl(views[block, "restored"]["kl"]),
            f"▲ flagged: {row['reason']}" if row["flagged"] else f"z = {row['z']:.1f}",
            style=style,
        )
    return table


def units_table(rows: Sequence[Mapping[str, Any]], flagged: Sequence[int], bits: int) -> Table:
    """The units of the flagged blocks, worst first. rows: at the low width, `bits`."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("unit", f"KL at {bits} bits", "estimated"):
        table.add_column(name, justify="left" if name == "unit" else "right")
    chosen = [row for row in rows if row["block"] in flagged]
    for row in sorted(chosen, key=lambda row: -as_cost(unit_kl(row))):
        table.add_row(
            row["unit"], _number(row["exact_kl"], ".5f"), _number(row["estimated_kl"], ".5f")
        )
    return table


def show_run(run: RunDirectory, console: Console) -> None:
    """Print a run: verdict, headline numbers, blocks, units, recipe, and how PPL was defined."""
    record = run.look()
    recipe_path = run.path / "recipe.json"
    compared = is_comparison(record)
    low = 0 if compared else record["spec"]["bits"]
    changed = (
        [f for f in load_recipe(recipe_path).units if f.bits != low] if recipe_path.exists() else []
    )
    promoted = [entry.unit for entry in changed if entry.bits == record["spec"]["rescue_bits"]]
    console.print()
    console.print(Text(write_verdict(record, promoted), style="bold"))
    if record["state"] in ("stopped", "failed"):
        # Whole, so that it can be copied from a narrow terminal too.
        console.print(Text(run.how_to_finish()), soft_wrap=True)
    headline = record["headline"]
    if "kl" not in headline:
        return
    kind = name_uniform(record)
    named = kind if not compared or kind == "the candidate" else f"candidate: {kind}"
    parts: list[Any] = [headline_table(headline, named, mixed=not compared)]
    parts.append(blocks_table(run.read_table("blocks").to_pylist()))
    if headline["flagged"] and (run.path / "units.parquet").exists() and not compared:
        units = quantized_units(run.read_table("units").to_pylist(), record["spec"])
        parts.append(units_table(units, headline["flagged"], low))
    if recipe_path.exists():
        listed = ", ".join(f"{entry.unit} → {entry.bits}" for entry in changed)
        parts.append(Text(f"recipe: every unit at {low} bits" + (f", but {listed}" * bool(listed))))
    if compared:
        facts = list_facts(record)
        parts += [Text(f"{name.lower()}: {fact}") for name, fact in facts.items()]
    estimator = record.get("estimator", {})
    if estimator.get("spearman") is not None:
        parts.append(
            Text(
                f"unit estimates: Spearman {estimator['spearman']:.2f} against "
                f"{estimator['verified_units']} units measured exactly"
            )
        )
    uncalibrated = write_uncalibrated(record)
    if uncalibrated:
        parts.append(Text(uncalibrated))
    if headline["additivity"] is not None:
        parts.append(
            Text(
                f"additivity: the blocks' KL add up to {headline['additivity']:.2f} of the whole's"
            )
        )
    if "serving" in record and not compared:
        parts.append(Text(f"checkpoint: {write_serving(record['serving'])}"))
    largest = write_range(record)
    if largest:
        parts.append(Text(f"largest activation: {largest}"))
    if headline.get("served") and headline["served"]["finite"]:
        parts.append(Text(write_measured_type(headline["served"])))
    aside = write_aside(record["source"].get("left_aside", ()))
    if aside:
        parts.append(Text(f"model's files: {aside}"))
    definition = record["ppl_definition"]
    counted = f"{definition['scored_tokens']:,} tokens scored of {definition['text']}"
    parts.append(Text(f"perplexity: {definition['sentence']} ({counted})", style="dim"))
    where = f"run: {run.path}"
    if run.checkpoint.exists():
        where += f"   checkpoint: {run.checkpoint}"
    parts.append(Text(where, style="dim"))
    console.print(Group(*parts))
