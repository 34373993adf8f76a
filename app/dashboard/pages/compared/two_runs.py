"""Two models side by side, each of a run: which is better, what differs, and in which blocks."""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import html

from awqscope.app.dashboard.pairs import pair as read_pair
from awqscope.app.dashboard.pairs import trouble_of
from awqscope.app.dashboard.parts import (
    as_table,
    card,
    chart,
    go_to,
    heading,
    notice,
    switch,
    table,
)
from awqscope.app.dashboard.urls import BETWEEN, Page, link
from awqscope.app.figures.blocks import draw_differences
from awqscope.app.store import Store, UnknownRunError
from awqscope.app.words.compared.two_models import (
    block_differences,
    blocks_summary,
    different_settings,
    headline_rows,
    is_judged,
    name_models,
    name_side,
    write_pair_verdict,
)
from awqscope.diagnose.gate.findings import Missing
from awqscope.diagnose.gate.paired import Pair, Side, choose_side, list_models
from awqscope.diagnose.gate.shares import Cost
from awqscope.diagnose.runs.record import MIXED
from awqscope.mixedprec.words import write_interval, write_number

METRICS = {"kl": "KL", "delta_ppl": "ΔPPL"}
FORMS = {"kl": "+.5f", "delta_ppl": "+.4f"}
SIDES = ("a", "b")
NO_DELTA_PPL = (
    "ΔPPL by block is measured of the uniform model only: choose it on both sides, or measure KL."
)

Row = Mapping[str, Any]


def differences_card(store: Store, a: Side, b: Side, pair: Pair, metric: str) -> Any:
    """The chart of differences with its summary, winners and losers, and table."""
    control, title = switch("measure", "Measure", METRICS, metric), "Block by block"
    costs = [_read_costs(store, side, metric) for side in (a, b)]
    first, second = costs
    if isinstance(first, Missing) or isinstance(second, Missing):
        why = next(each.reason for each in costs if isinstance(each, Missing))
        return card(
            title, notice("There is nothing to set side by side", html.P(why)), beside=control
        )
    rows, form = block_differences(first, second), FORMS[metric]
    return card(
        title,
        chart(
            draw_differences(rows, metric, judged=is_judged(pair)),
            "Differences by block, see the table",
        ),
        as_table(
            {"block": "Block", "a": "A", "b": "B", "difference": "B − A", "interval": "95%"},
            [
                {
                    "block": str(row["block"]),
                    "a": write_number(row["a"]),
                    "b": write_number(row["b"]),
                    "difference": write_number(row["difference"], form),
                    "interval": write_interval((row["low"], row["high"]), form),
                }
                for row in rows
            ],
        ),
        summary=blocks_summary(rows, a, b, pair, metric, form),
        beside=control,
    )


def _read_costs(store: Store, side: Side, metric: str) -> Mapping[int, Cost] | Missing:
    """Each block's damage in a side's model."""
    if metric == "kl":
        return store.block_costs(side.run.path.name, side.stored)
    if side.model == MIXED:
        return Missing(NO_DELTA_PPL)
    return {
        row["block"]: (row[metric], row[f"{metric}_low"], row[f"{metric}_high"])
        for row in store.table(side.run.path.name, "blocks")
        if row["view"] == "isolated"
    }


def chooser(names: Sequence[str], page: Page, sides: Mapping[str, Side]) -> Any:
    """Of each side the run, and which of its models."""
    data = [{"value": name, "label": name} for name in names]
    return html.Div(
        [_choose_side(data, name, page, sides.get(name)) for name in SIDES], className="choosers"
    )


def _choose_side(data: Sequence[Row], name: str, page: Page, side: Side | None) -> html.Div:
    known = [entry["value"] for entry in data]
    value = page.option(name)
    models = name_models(side.record, list_models(side.record)) if side else {}
    return html.Div(
        [
            dmc.Select(
                id=f"compare-{name}",
                label=f"Run {name.upper()}",
                data=data,
                value=value if value in known else None,
                searchable=True,
                allowDeselect=False,
                placeholder="choose a run",
            ),
            dmc.SegmentedControl(
                id={"type": "side-model", "side": name},
                data=[{"value": model, "label": text} for model, text in models.items()],
                value=side.model,
                size="xs",
                **{"aria-label": f"Model of run {name.upper()}"},
            )
            if side is not None
            else None,
        ],
        className="chooser",
    )


def follow_choice(
    page: Page, sides: Mapping[str, Side], runs: Mapping[str, str | None], models: Mapping[str, str]
) -> dict[str, str] | None:
    """What the address must have once these runs and models, by side, are chosen on `page`; None
    where it has it, or a run is still to be chosen. sides: what the page shows. A run that is
    chosen anew brings its own model."""
    wanted: dict[str, str] = {}
    for name in SIDES:
        run, shown, given = runs.get(name), sides.get(name), page.option(f"model_{name}")
        if not run:
            return None
        is_new = run != page.option(name)
        chosen = models.get(name, "")
        kept = given if shown is None or chosen == shown.model else chosen
        wanted |= {name: run, f"model_{name}": "" if is_new else kept}
    return None if all(page.option(key) == value for key, value in wanted.items()) else wanted


def read_sides(store: Store, page: Page) -> dict[str, Side]:
    """The sides at an address, those that can be compared. UnknownRunError for a run that is not
    here."""
    found = {}
    for name in SIDES:
        if not page.option(name):
            continue
        run = store.summary(page.option(name))
        if not trouble_of(run):
            assert run.record is not None
            model = page.option(f"model_{name}")
            found[name] = choose_side(store.find(run.name), run.record, model)
    return found


def comparison(store: Store, a: Side, b: Side, metric: str) -> list[Any]:
    """The comparison of two sides: verdict, numbers, settings and blocks."""
    pair = read_pair(store, a, b)
    verdict = write_pair_verdict(a, b, pair)
    parts: list[Any] = [html.P(verdict, className="verdict")]
    if pair.same_tokens is False:
        parts = [notice("Measured on different text", html.P(verdict), tone="bad")]
    elif pair.same_tokens is None:
        said = html.P("An earlier version made one of them and did not say on which tokens.")
        parts.append(notice("It is not known whether the texts are the same", said))
    columns = {"what": ""} | {
        name: f"{name.upper()}: {side.run.path.name}, {name_side(side)}"
        for name, side in zip(SIDES, (a, b), strict=True)
    }
    columns |= {"difference": "B − A", "interval": "95%, paired by token"}
    parts.append(card("Headline", table(columns, headline_rows(a, b, pair))))
    differing = different_settings(a, b)
    parts.append(
        card(
            "Settings that differ",
            table({"what": "Setting", "a": "A", "b": "B"}, differing) if differing else None,
            summary=None if differing else "None: same model, texts, options and versions.",
        )
    )
    parts.append(html.Div(differences_card(store, a, b, pair, metric), id="differences-card"))
    return parts


def layout(store: Store, page: Page) -> Any:
    """The compare page of two sides."""
    names = [run.name for run in store.list_runs()]
    table_of_both = link("compare", runs=BETWEEN.join(map(page.option, SIDES)))
    parts: list[Any] = [
        heading(
            "Compare",
            over=go_to("Runs", link("runs")),
            beside=[go_to("Several in one table", table_of_both)],
        )
    ]
    try:
        sides = read_sides(store, page)
    except UnknownRunError as error:
        said = html.P(f"{error} is not here any more.")
        return [*parts, chooser(names, page, {}), notice("No such run", said)]
    parts.append(chooser(names, page, sides))
    if not (page.option("a") and page.option("b")):
        return [*parts, notice("Choose two runs", html.P("A is the baseline, B the candidate."))]
    for name in SIDES:
        if name not in sides:
            run = store.summary(page.option(name))
            said = html.P(trouble_of(run))
            return [*parts, notice(f"{run.name} cannot be compared", said)]
    return [*parts, *comparison(store, sides["a"], sides["b"], page.option("measure"))]
