"""The verdict of a run in the terminal. Reads the run directory only; deciding was done before."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from awqscope.app.terminal.notes import write_notes
from awqscope.app.words.compared.comparison import list_facts, name_kind
from awqscope.app.words.noise import NOISE, find_floor, write_floor, write_noise
from awqscope.app.words.offers import list_offers, write_offers
from awqscope.app.words.predict import quantized_units, unit_kl
from awqscope.app.words.run import promoted_units
from awqscope.app.words.texts import (
    ABOUT_TEXTS,
    TEXT_COLUMNS,
    text_rows,
    write_block_texts,
    write_found,
    write_sample,
    write_worst_text,
)
from awqscope.app.words.verdict import write_kl, write_range, write_verdict
from awqscope.diagnose.entries.headline import ComparedHeadline, Headline
from awqscope.diagnose.entries.served_type import write_measured_type
from awqscope.diagnose.entries.uncalibrated import write_uncalibrated
from awqscope.diagnose.gate.block_texts import read_block_texts
from awqscope.diagnose.gate.evidence import read_numbers
from awqscope.diagnose.gate.texts import IN_HEADLINE, RunNumbers
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.notes import find_notes
from awqscope.diagnose.runs.record import MIXED, AnyRecord, Comparison, Record
from awqscope.diagnose.statistics.spikes import is_noise
from awqscope.mixedprec.checkpoints.serving import write_serving
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.weight_files import write_aside
from awqscope.mixedprec.ranking import as_cost
from awqscope.mixedprec.recipes.recipe import Recipe, load_recipe
from awqscope.mixedprec.words import NOTHING, write_bounded, write_number, write_size


def _kl(value: float | None) -> str:
    return NOTHING if value is None else write_kl(value, 5)


# What a narrow terminal has no room for; the whole text's is in the first table.
LEFT_OUT, INTERVALS = ("delta_p",), ("kl", "recovered")


def headline_table(
    headline: Headline | ComparedHeadline, quantized: str, numbers: RunNumbers | None = None
) -> Table:
    """The reference, the quantized model (by its name) and, of a run, mixed side by side. numbers:
    what the headline lacks, where the run's tokens are there."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    names = ["16-bit", quantized, *(["mixed"] * isinstance(headline, Headline))]
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")

    def add(label: str, *cells: str) -> None:
        table.add_row(label, *cells[: len(names)])

    ppl, delta, kl = headline.ppl, headline.delta_ppl, headline.kl
    p999, top, size = headline.kl_p999, headline.top1_agreement, headline.bytes

    def interval(values: Sequence[float] | None) -> str:
        return NOTHING if values is None else write_bounded(values[0], values[1:], "+.3f")

    add("perplexity", *[write_number(n, ".3f") for n in (ppl.reference, ppl.quantized, ppl.mixed)])
    add("ΔPPL [95%]", "", interval(delta.quantized), interval(delta.mixed))
    if numbers is not None:
        first = next((model for model in numbers.models if model != MIXED), "")
        for name in IN_HEADLINE:
            found = [write_found(numbers.whole.find(m, name), name) for m in (first, MIXED)]
            add(f"{TEXT_COLUMNS[name]} [95%]", "", *found)
    add("KL, mean (nats a token)", "", _kl(kl.quantized), _kl(kl.mixed))
    add("KL, p99.9", "", write_number(p999.quantized, ".3f"), write_number(p999.mixed, ".3f"))
    add("same top token", "", write_number(top.quantized, ".1%"), write_number(top.mixed, ".1%"))
    add("all weights", *[write_size(n) for n in (size.reference, size.quantized, size.mixed)])
    return table


def texts_table(numbers: RunNumbers, record: AnyRecord) -> Table:
    """Every number by text and model, with the intervals that decide."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown = {key: head for key, head in TEXT_COLUMNS.items() if key not in LEFT_OUT}
    for key, head in shown.items():
        named = head if head[1:2].isupper() or head.startswith("Δ") else head.lower()
        named += " [95%]" * (key in INTERVALS)
        table.add_column(named, justify="left" if key in ("text", "model") else "right")
    for row in text_rows(numbers, record):
        cells = (row[key] if key in INTERVALS else row[key][:1] for key in shown)
        table.add_row(*(Text(" ".join(part for part in cell if part)) for cell in cells))
    return table


def blocks_table(rows: Sequence[Mapping[str, Any]], floor: float | None = None) -> Table:
    """A line a block: isolated KL with its interval, ΔPPL, and what restoring it gives back. floor:
    the KL below which damage is noise, where that was measured."""
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
        placed = NOISE if is_noise(row["kl"], floor) else f"z = {write_number(row['z'], '.1f')}"
        table.add_row(
            str(block),
            f"{_kl(row['kl'])} [{_kl(row['kl_low'])}, {_kl(row['kl_high'])}]",
            Text(bar, style="dark_orange" if row["flagged"] else "blue"),
            write_number(row["delta_ppl"], "+.3f"),
            _kl(views[block, "cumulative"]["kl"]),
            _kl(views[block, "restored"]["kl"]),
            f"▲ flagged: {row['reason']}" if row["flagged"] else placed,
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
            row["unit"],
            write_number(row["exact_kl"], ".5f"),
            write_number(row["estimated_kl"], ".5f"),
        )
    return table


def show_run(run: RunDirectory, console: Console) -> None:
    """Print a run: verdict, headline numbers, blocks, units, recipe, and how PPL was defined."""
    record = run.look()
    recipe_path = run.path / "recipe.json"
    recipe = load_recipe(recipe_path) if recipe_path.exists() else None
    console.print()
    verdict = write_verdict(record, promoted_units(recipe, record))
    console.print(Text(verdict, style="bold"))
    notes, damage = find_notes(run.path)
    for line in [*write_notes(notes), *([damage] if damage else [])]:
        console.print(Text(line))
    if record.state in ("stopped", "failed"):
        # Whole, so that it can be copied from a narrow terminal too.
        console.print(Text(run.how_to_finish()), soft_wrap=True)
    headline = record.headline
    if headline is None:
        return
    kind = name_kind(record)
    compared = isinstance(record, Comparison)
    named = f"candidate: {kind}" if compared and kind != "the candidate" else kind
    numbers, lacking = _find_numbers(run, record)
    parts: list[Any] = [headline_table(headline, named, numbers)]
    parts += [Text(lacking)] if lacking else []
    blocks, floor = run.read_table("blocks").to_pylist(), find_floor(record)
    parts.append(blocks_table(blocks, floor))
    if isinstance(record, Comparison):
        parts += [Text(f"{name.lower()}: {fact}") for name, fact in list_facts(record).items()]
    else:
        parts += _show_made(run, record, recipe)
    parts += _show_texts(run, record, numbers)
    if headline.additivity is not None:
        parts.append(
            Text(f"additivity: the blocks' KL add up to {headline.additivity:.2f} of the whole's")
        )
    sample = write_sample(record)
    if sample:
        parts.append(Text(f"blocks: {sample}"))
    if isinstance(record, Record) and record.serving is not None:
        parts.append(Text(f"checkpoint: {write_serving(record.serving.to_json())}"))
    if floor is not None:
        said = f"noise floor: {write_floor(record)}. {write_noise(blocks, floor)}"
        parts.append(Text(said.removesuffix(". ")))
    largest = write_range(record)
    if largest:
        parts.append(Text(f"largest activation: {largest}"))
    if isinstance(headline, Headline) and headline.served and headline.served.finite:
        parts.append(Text(write_measured_type(headline.served)))
    aside = write_aside(record.source.left_aside)
    if aside:
        parts.append(Text(f"model's files: {aside}"))
    definition = record.ppl_definition
    counted = f"{definition.scored_tokens:,} tokens scored of {definition.text}"
    parts.append(Text(f"perplexity: {definition.sentence} ({counted})", style="dim"))
    where = f"run: {run.path}"
    if run.checkpoint.exists():
        where += f"   checkpoint: {run.checkpoint}"
    parts.append(Text(where, style="dim"))
    console.print(Group(*parts))
    offers = list_offers(record, run.path)
    if offers:
        console.print(Text(write_offers(offers)))
        # Whole, so that they can be copied from a narrow terminal too.
        for each in offers:
            console.print(Text(f"  {each.command}"), soft_wrap=True)


def write_run_json(run: RunDirectory) -> dict[str, Any]:
    """A run's headline for scripts, with what it lacks and every number by text; empty while
    nothing is measured. What the run's tokens do not give is left out."""
    record = run.read()
    headline: dict[str, Any] = record.to_json()["headline"]
    numbers = _find_numbers(run, record)[0] if headline else None
    return headline if numbers is None else headline | numbers.to_json()


def _find_numbers(run: RunDirectory, record: AnyRecord) -> tuple[RunNumbers | None, str]:
    """The numbers of a run by text; none where its tokens cannot be read, and why."""
    try:
        return read_numbers(run, record), ""
    except InputError as error:
        return None, f"by text and Δp: {error.what}; {error.remedy}"


def _show_texts(run: RunDirectory, record: AnyRecord, numbers: RunNumbers | None) -> list[Any]:
    """Every number by text, and which text flagged blocks hurt; nothing of a single text."""
    if numbers is None or len(numbers.texts) < 2:
        return []
    said = [write_worst_text(numbers, record), write_block_texts(read_block_texts(run, record))]
    about = Text(ABOUT_TEXTS, style="dim")
    return [texts_table(numbers, record), *(Text(each) for each in said if each), about]


def _show_made(run: RunDirectory, record: Record, recipe: Recipe | None) -> list[Any]:
    """What only a run has: units, a recipe, estimates, and experts that saw too little."""
    parts: list[Any] = []
    low, flagged = record.spec.bits, record.measured.flagged
    if flagged and (run.path / "units.parquet").exists():
        units = quantized_units(run.read_table("units").to_pylist(), record.spec)
        parts.append(units_table(units, flagged, low))
    if recipe is not None:
        others = {unit: width for unit, width in recipe.widths.items() if width != low}
        listed = ", ".join(f"{unit} → {width}" for unit, width in others.items())
        parts.append(Text(f"recipe: every unit at {low} bits" + (f", but {listed}" * bool(listed))))
    estimator = record.estimator
    if estimator is not None and estimator.spearman is not None:
        parts.append(
            Text(
                f"unit estimates: Spearman {estimator.spearman:.2f} against "
                f"{estimator.verified_units} units measured exactly"
            )
        )
    uncalibrated = write_uncalibrated(record.uncalibrated)
    return [*parts, *([Text(uncalibrated)] if uncalibrated else [])]
