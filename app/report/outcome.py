"""What a report says of the recipe, what was predicted and measured of it, and where every number
is from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from awqscope.app.figures.recipes import draw_recipes
from awqscope.app.report.contents import Findings
from awqscope.app.report.pieces import Chart, Table
from awqscope.app.words.comparison import NO_RECIPE
from awqscope.app.words.numbers import interval, megabytes, number, share
from awqscope.app.words.predict import predict, unit_table
from awqscope.app.words.run import list_hashes, measured_points, point_rows, provenance_facts
from awqscope.diagnose.runs.directory import is_comparison
from awqscope.mixedprec.recipes.widths import list_changed, list_widths


@dataclass(frozen=True)
class RecipePart:
    """The recipe in a sentence, where each width is, and what was predicted and measured of it."""

    sentence: str
    widths: Table | None
    outcome: Table | None
    chart: Chart | None
    proof: Mapping[str, str] = field(default_factory=dict)


def recipe_part(found: Findings) -> RecipePart:
    """The recipe, what was predicted and measured of it, and its proof."""
    recipe, record = found.recipe, found.record
    if is_comparison(record):
        return RecipePart(NO_RECIPE, None, None, None)
    if recipe is None:
        return RecipePart("The run chose no recipe.", None, None, None)
    spec, headline = record["spec"], record["headline"]
    changed = list_changed(recipe, spec["bits"])
    sentence = f"Every unit at {spec['bits']} bits" + (f", but {changed}." if changed else ".")
    skipped = record["stages"].get("requantize", {})
    if skipped.get("state") == "skipped":
        sentence += f" No checkpoint was written: {skipped.get('reason', '')}."
    widths = sorted(set(recipe.bits.values()))
    points = measured_points(record, found.promotions)
    return RecipePart(
        sentence=sentence,
        widths=Table(
            {"unit": "Unit"} | {str(bits): f"{bits} bits" for bits in widths},
            list_widths(recipe),
            "Blocks by unit and width",
        ),
        outcome=_outcome_table(found) if found.units else None,
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
        if headline["kl"]["uniform"] > 0
        else None,
        proof=_proof_facts(found.proof),
    )


def _outcome_table(found: Findings) -> Table:
    """Size, KL, perplexity and recovered share of the recipe: predicted, and measured from disk."""
    assert found.recipe is not None
    headline = found.record["headline"]
    mine = predict(found.record, unit_table(found.units), found.recipe.bits)
    kl, ppl, size = headline["kl"], headline["ppl"], headline["bytes"]
    bounds = {
        "kl": interval((headline.get("kl_interval") or {}).get("mixed"), ".4f"),
        "recovered": interval(headline.get("recovered_interval"), ".1%"),
    }
    rows = [
        ("Weights", megabytes(mine.bytes), megabytes(size.get("mixed"))),
        ("KL", number(mine.kl, ".4f"), f"{number(kl.get('mixed'), '.4f')} {bounds['kl']}"),
        ("Perplexity", number(mine.ppl, ".3f"), number(ppl.get("mixed"), ".3f")),
        (
            "Lost KL given back",
            share(mine.recovered),
            f"{share(headline.get('recovered'))} {bounds['recovered']}",
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
            f"measured {number(checks['measured_kl'], '.6f')}, "
            f"simulated {number(checks['simulated_kl'], '.6f')}"
        )
    if "reference_nll_difference" in checks:
        worst = number(checks["reference_nll_difference"], ".2g")
        facts["Reference, run again"] = f"largest difference in NLL {worst}"
    return facts


def provenance(found: Findings) -> dict[str, str]:
    """How, on what, with what and when the numbers were made, by name."""
    record = found.record
    return provenance_facts(record) | {
        "Seed": str(record["spec"]["seed"]),
        "Begun": _write_time(record["created"]),
        "Finished": _write_time(record.get("updated")),
        "Asked for": str(record["model"]),
    }


def _write_time(stamp: str | None) -> str:
    return f"{stamp[:16].replace('T', ' ')} UTC" if stamp else "–"


def provenance_tables(found: Findings) -> list[Table]:
    """Every hash in full, and every option."""
    record = found.record
    texts = {
        "Validation": record["ppl_definition"],
        "Calibration": record.get("calibration", {}),
    }
    hashes = [
        {"what": f"{name} {kind}", "hash": part[key]}
        for name, part in texts.items()
        for kind, key in (("text", "text_sha256"), ("tokens", "tokens_sha256"))
        if part.get(key)
    ]
    hashes += [
        {"what": f"Text {part['text']}", "hash": part["sha256"]}
        for part in record["ppl_definition"].get("slices", ())
    ]
    hashes += [{"what": name, "hash": value} for name, value in list_hashes(record).items()]
    options = [
        {"option": name, "value": _write_option(value)} for name, value in record["spec"].items()
    ]
    return [
        Table({"what": "What", "hash": "SHA-256"}, hashes, "Hashes", code=("hash",)),
        Table({"option": "Option", "value": "Value"}, options, "Options of the run"),
    ]


def _write_option(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
