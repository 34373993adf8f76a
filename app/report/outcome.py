"""What a report says of the recipe, what was predicted and measured of it, and where every number
is from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from awqscope.app.figures.recipes import draw_recipes
from awqscope.app.report.contents import Findings
from awqscope.app.report.pieces import Chart, Table
from awqscope.app.words.compared.comparison import NO_RECIPE
from awqscope.app.words.compared.two_models import write_value
from awqscope.app.words.offers import COLUMNS, offer_rows, write_offers
from awqscope.app.words.predict import predict, unit_table
from awqscope.app.words.provenance import list_hashes, provenance_facts
from awqscope.app.words.run import measured_points, point_rows
from awqscope.diagnose.entries.source import CutText
from awqscope.diagnose.options.option import Option, list_options
from awqscope.diagnose.runs.record import Comparison, Record
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.recipes.widths import list_changed, list_widths
from awqscope.mixedprec.scheme import sort_widths
from awqscope.mixedprec.words import (
    write_interval,
    write_memory,
    write_number,
    write_share,
    write_size,
)


@dataclass(frozen=True)
class RecipePart:
    """The recipe in a sentence, where each width is, and what was predicted and measured of it."""

    sentence: str
    widths: Table | None
    outcome: Table | None
    chart: Chart | None
    proof: Mapping[str, str] = field(default_factory=dict)
    offered: str = ""
    offers: Table | None = None


def recipe_part(found: Findings) -> RecipePart:
    """The recipe, what was predicted and measured of it, and its proof."""
    recipe, record = found.recipe, found.record
    if isinstance(record, Comparison):
        return RecipePart(NO_RECIPE, None, None, None)
    if recipe is None:
        return RecipePart("The run chose no recipe.", None, None, None)
    bits = record.spec.bits
    changed = list_changed(recipe, bits)
    sentence = f"Every unit at {bits} bits" + (f", but {changed}." if changed else ".")
    skipped = record.find_skipped("requantize")
    if skipped is not None:
        sentence += f" No checkpoint was written: {skipped}."
    widths = sort_widths(recipe.widths.values())
    points = measured_points(record, found.promotions)
    return RecipePart(
        sentence=sentence,
        widths=Table(
            {"unit": "Unit"} | {str(width): f"{width} bits" for width in widths},
            list_widths(recipe),
            "Blocks by unit and width",
        ),
        outcome=_outcome_table(record, recipe, found) if found.units else None,
        chart=Chart(
            key="recipes",
            title="Size against damage",
            figure=draw_recipes(points),
            summary=(
                "Down and to the left is better. Full circles were measured; hollow ones are "
                "promotions that the sweep tried in the quantized model."
            ),
            table=Table(
                {"name": "Recipe", "bytes": "Weights", "kl": "KL", "kind": "How known"},
                point_rows(points),
                "Recipes by size and KL",
            ),
        )
        if record.measured.kl.uniform > 0
        else None,
        proof=_proof_facts(found.proof),
        offered=write_offers(found.offers) if found.offers else "",
        offers=Table(COLUMNS, offer_rows(found.offers), "Recipes for more bytes", code=("command",))
        if found.offers
        else None,
    )


def _outcome_table(record: Record, recipe: Recipe, found: Findings) -> Table:
    """Size, KL, perplexity and recovered share of the recipe: predicted, and measured from disk."""
    headline = record.measured
    mine = predict(record, unit_table(found.units, found.groups), recipe.widths)
    bounds = {
        "kl": write_interval(headline.kl_interval.mixed, ".4f"),
        "recovered": write_interval(headline.recovered_interval, ".1%"),
    }
    rows = [
        ("Weights", write_size(mine.bytes), write_size(headline.bytes.mixed)),
        (
            "KL",
            write_number(mine.kl, ".4f"),
            f"{write_number(headline.kl.mixed, '.4f')} {bounds['kl']}",
        ),
        ("Perplexity", write_number(mine.ppl, ".3f"), write_number(headline.ppl.mixed, ".3f")),
        (
            "Lost KL given back",
            write_share(mine.recovered),
            f"{write_share(headline.recovered)} {bounds['recovered']}",
        ),
    ]
    return Table(
        {
            "what": "Of the recipe",
            "predicted": "Predicted from the units",
            "measured": "Measured from disk",
        },
        [{"what": what, "predicted": a, "measured": b.strip()} for what, a, b in rows],
        "What the recipe comes to",
    )


def _proof_facts(proof: Mapping[str, Any] | None) -> dict[str, str]:
    """The checks of the proof by name; empty without one."""
    if proof is None:
        return {}
    checks = proof["checks"]
    faults = {
        "of another width than the recipe's": "wrong_width",
        "unexpected": "unexpected",
        "different on disk": "differing_on_disk",
        "different in transformers": "differing_in_transformers",
    }
    found = [
        f"{len(checks[key])} {what} ({checks[key][0]} first)"
        for what, key in faults.items()
        if checks.get(key)
    ]
    counted = [f"{checks[key]:,} {key}" for key in ("linears", "tensors") if key in checks]
    reasons = "; ".join(proof.get("reasons") or ())
    facts = {
        "Proof": "passed" if proof["passed"] else f"FAILED: {reasons}" if reasons else "FAILED",
        "Loaded with": f"{proof['loaded_with']}, in a process of its own",
        "Compared": f"{', '.join(counted)}, bit for bit",
        "Differences": "; ".join(found) or "none",
    }
    # Proofs of earlier versions lack some.
    if "simulated_kl" in checks:
        facts["KL"] = (
            f"measured {write_number(checks['measured_kl'], '.6f')}, "
            f"simulated {write_number(checks['simulated_kl'], '.6f')}"
        )
    if "reference_nll_difference" in checks:
        worst = write_number(checks["reference_nll_difference"], ".2g")
        facts["Reference, run again"] = f"largest difference in NLL {worst}"
    return facts


def provenance(found: Findings) -> dict[str, str]:
    """How, on what, with what and when the numbers were made, by name."""
    record = found.record
    return provenance_facts(record) | {
        "Seed": str(record.spec.seed),
        "Begun": _write_time(record.created),
        "Finished": _write_time(record.updated),
        "Asked for": record.model,
    }


def _write_time(stamp: str) -> str:
    return f"{stamp[:16].replace('T', ' ')} UTC"


def provenance_tables(found: Findings) -> list[Table]:
    """Every hash in full, and every option."""
    record = found.record
    texts: dict[str, CutText] = {"Validation": record.ppl_definition}
    if isinstance(record, Record):
        texts["Calibration"] = record.calibration
    hashes = [
        {"what": f"{name} {kind}", "hash": found}
        for name, text in texts.items()
        for kind, found in (("text", text.text_sha256), ("tokens", text.tokens_sha256))
        if found
    ]
    hashes += [
        {"what": f"Text {part.text}", "hash": part.sha256} for part in record.ppl_definition.slices
    ]
    hashes += [{"what": name, "hash": value} for name, value in list_hashes(record).items()]
    known = list_options(type(record.spec))
    options = [
        {"option": known[name].label, "value": _write_option(known[name], value)}
        for name, value in record.spec.to_json().items()
    ]
    return [
        Table({"what": "What", "hash": "SHA-256"}, hashes, "Hashes", code=("hash",)),
        Table({"option": "Option", "value": "Value"}, options, "Options of the run"),
    ]


def _write_option(option: Option, value: Any) -> str:
    if value is None:
        return option.shown.unset or write_value(value)
    return write_memory(value) if option.is_size else write_value(value)
