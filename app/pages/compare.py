"""Two runs side by side: what differs between them, and which blocks are better or worse off."""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import html

from app.figures.blocks import draw_differences
from app.jobs import Jobs
from app.parts import (
    as_table,
    card,
    chart,
    go_to,
    heading,
    interval,
    megabytes,
    notice,
    number,
    share,
    switch,
    table,
)
from app.store import RunSummary, Store, UnknownRunError
from app.urls import Page, link
from diagnose.rundir import NOT_BINDING

METRICS = {"kl": "KL", "delta_ppl": "ΔPPL"}
NUMBERS = (
    ("Perplexity, 16-bit", "ppl", "reference", ".3f"),
    ("Perplexity, uniform", "ppl", "uniform", ".3f"),
    ("Perplexity, mixed", "ppl", "mixed", ".3f"),
    ("KL, uniform", "kl", "uniform", ".5f"),
    ("KL, mixed", "kl", "mixed", ".5f"),
    ("Same top token, uniform", "top1_agreement", "uniform", ".1%"),
    ("Same top token, mixed", "top1_agreement", "mixed", ".1%"),
)
MOST = 5

Row = Mapping[str, Any]


def block_differences(a: Sequence[Row], b: Sequence[Row], metric: str) -> list[dict[str, Any]]:
    """B − A of the isolated damage of every block both have, with an interval as of independent
    estimates (the half-widths add in squares), which for runs on the same text is cautious."""
    before = {row["block"]: row for row in a if row["view"] == "isolated"}
    found = []
    for row in b:
        if row["view"] != "isolated" or row["block"] not in before:
            continue
        other = before[row["block"]]
        low, high = f"{metric}_low", f"{metric}_high"
        difference = row[metric] - other[metric]
        down = ((row[metric] - row[low]) ** 2 + (other[high] - other[metric]) ** 2) ** 0.5
        up = ((row[high] - row[metric]) ** 2 + (other[metric] - other[low]) ** 2) ** 0.5
        found.append(
            {
                "block": row["block"],
                "a": other[metric],
                "b": row[metric],
                "difference": difference,
                "low": difference - down,
                "high": difference + up,
            }
        )
    return sorted(found, key=lambda row: row["block"])


def settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a run's numbers, flat: setting -> value."""
    flat = dict(record["spec"])
    flat |= {f"version of {name}": value for name, value in record["versions"].items()}
    flat |= {f"source {key}": record["source"][key] for key in ("architecture", "dtype")}
    flat["weights"] = " ".join(value[:10] for value in record["source"]["hashes"].values())
    flat["validation tokens"] = _shorten(record["ppl_definition"].get("tokens_sha256"))
    if "candidate" in record:
        hashes = record["candidate"]["hashes"].values()
        flat["candidate's weights"] = " ".join(value[:10] for value in hashes)
    if "calibration" in record:
        flat["calibration tokens"] = _shorten(record["calibration"].get("tokens_sha256"))
    for option in NOT_BINDING:
        flat.pop(option, None)
    return flat


def _shorten(digest: str | None) -> str:
    """The beginning of a hash; runs of earlier versions lack some."""
    return "not known" if digest is None else digest[:16]


def different_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, str]]:
    """Only what differs."""
    first, second = settings(a), settings(b)
    return [
        {"what": name, "a": write_value(first.get(name)), "b": write_value(second.get(name))}
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    ]


def write_value(value: Any) -> str:
    """A setting as text."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def headline_rows(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline numbers of both, and the difference."""
    rows = []
    for name, entry, model, form in NUMBERS:
        values = [headline.get(entry, {}).get(model) for headline in (a, b)]
        known = None not in values
        rows.append(
            {
                "what": name,
                "a": number(values[0], form),
                "b": number(values[1], form),
                "difference": number(values[1] - values[0], f"+{form}") if known else "–",
            }
        )
    for model in ("uniform", "mixed"):
        values = [headline.get("bytes", {}).get(model) for headline in (a, b)]
        known = None not in values and values[0]
        rows.append(
            {
                "what": f"Size, {model}",
                "a": megabytes(values[0]),
                "b": megabytes(values[1]),
                "difference": number(values[1] / values[0] - 1, "+.1%") if known else "–",
            }
        )
    rows.append(
        {
            "what": "Recovered",
            "a": share(a.get("recovered")),
            "b": share(b.get("recovered")),
            "difference": "",
        }
    )
    return rows


def differences_card(rows: Sequence[Row], metric: str) -> Any:
    """The chart of differences with its summary, winners and losers, and table."""
    form = "+.5f" if metric == "kl" else "+.4f"
    better = sorted((r for r in rows if r["high"] < 0), key=lambda r: r["difference"])
    worse = sorted((r for r in rows if r["low"] > 0), key=lambda r: -r["difference"])

    def named(found: Sequence[Row], word: str) -> str:
        if not found:
            return f"No block is surely {word} in B."
        listed = ", ".join(f"{r['block']} ({number(r['difference'], form)})" for r in found[:MOST])
        more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
        return f"{word.capitalize()} in B: {listed}{more}."

    return card(
        "Block by block",
        chart(draw_differences(rows, metric), "Differences by block, see the table"),
        as_table(
            {"block": "Block", "a": "A", "b": "B", "difference": "B − A", "interval": "95%"},
            [
                {
                    "block": str(row["block"]),
                    "a": number(row["a"]),
                    "b": number(row["b"]),
                    "difference": number(row["difference"], form),
                    "interval": interval((row["low"], row["high"]), form),
                }
                for row in rows
            ],
        ),
        summary=f"{named(better, 'better')} {named(worse, 'worse')} Isolated damage, B − A.",
        beside=switch("measure", "Measure", METRICS, metric),
    )


def chooser(names: Sequence[str], a: str, b: str) -> Any:
    """Two selects."""
    data = [{"value": name, "label": name} for name in names]
    return html.Div(
        [
            dmc.Select(
                id=f"compare-{side}",
                label=f"Run {side.upper()}",
                data=data,
                value=value or None,
                searchable=True,
                allowDeselect=False,
                placeholder="choose a run",
                className="chooser",
            )
            for side, value in (("a", a), ("b", b))
        ],
        className="choosers",
    )


def comparison(store: Store, a: RunSummary, b: RunSummary, metric: str) -> list[Any]:
    """What two runs have to say to each other."""
    for run in (a, b):
        if run.record is None or "kl" not in run.record["headline"]:
            said = html.P(run.error or "It has measured nothing yet.")
            return [notice(f"{run.name} cannot be compared", said)]
    assert a.record is not None and b.record is not None
    parts: list[Any] = []
    tokens = [run.record["ppl_definition"].get("tokens_sha256") for run in (a, b) if run.record]
    if None in tokens:
        said = html.P("An earlier version made one of them and did not say on which tokens.")
        parts.append(notice("It is not known whether the texts are the same", said))
    elif tokens[0] != tokens[1]:
        said = html.P("Their numbers are of different validation tokens: differences mean little.")
        parts.append(notice("Measured on different text", said, tone="bad"))
    parts.append(
        card(
            "Headline",
            table(
                {"what": "", "a": f"A: {a.name}", "b": f"B: {b.name}", "difference": "B − A"},
                headline_rows(a.record["headline"], b.record["headline"]),
            ),
        )
    )
    differing = different_settings(a.record, b.record)
    parts.append(
        card(
            "Settings that differ",
            table({"what": "Setting", "a": "A", "b": "B"}, differing) if differing else None,
            summary=None if differing else "None: same model, texts, options and versions.",
        )
    )
    rows = block_differences(store.table(a.name, "blocks"), store.table(b.name, "blocks"), metric)
    if rows:
        parts.append(html.Div(differences_card(rows, metric), id="differences-card"))
    return parts


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The compare page."""
    names = [run.name for run in store.list_runs()]
    a, b = page.option("a"), page.option("b")
    parts: list[Any] = [heading("Compare", over=go_to("Runs", link("runs")))]
    parts.append(chooser(names, a if a in names else "", b if b in names else ""))
    if not (a and b):
        return [*parts, notice("Choose two runs", html.P("A is the baseline, B the candidate."))]
    try:
        found = store.summary(a), store.summary(b)
    except UnknownRunError as error:
        return [*parts, notice("No such run", html.P(f"{error} is not here any more."))]
    return [*parts, *comparison(store, *found, page.option("measure"))]
