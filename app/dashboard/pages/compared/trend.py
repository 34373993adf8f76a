"""One model over its releases: its numbers, and from one to the next what broke and was mended."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, html, no_update

from awqscope.app.dashboard import pairs
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.pages.compared.many_runs import read_chosen, show_numbers
from awqscope.app.dashboard.parts import as_table, card, chart, go_to, heading, notice, table
from awqscope.app.dashboard.sections.gate.card import ship_mark
from awqscope.app.dashboard.urls import BETWEEN, Page, link, read_address
from awqscope.app.figures.compared.trend import draw_trend
from awqscope.app.store import Store
from awqscope.app.words.compared.many_models import APART, COLUMNS, Judged, name_sides
from awqscope.app.words.compared.trend import (
    COST_COLUMNS,
    DRAWN,
    FROM_ZERO,
    POINT_COLUMNS,
    TOKEN_COLUMNS,
    cost_rows,
    point_row,
    read_point,
    write_passage,
    write_settings,
    write_step,
)
from awqscope.app.words.gate.ship import QUESTION
from awqscope.diagnose.compared.changes import Step
from awqscope.diagnose.compared.ranking import MOST_RANKED
from awqscope.diagnose.compared.releases import group_by_model, sort_releases
from awqscope.diagnose.compared.standing import Standing
from awqscope.diagnose.gate.findings import Missing
from awqscope.diagnose.gate.paired import Side, list_models
from awqscope.mixedprec.words import NOTHING, write_number


def list_releases(store: Store) -> Mapping[str, list[Side]]:
    """The releases of each model, each finished run by its default model."""
    sides = [
        side
        for side in pairs.list_sides(store)
        if side.record.state == "done" and side.model == list_models(side.record)[0]
    ]
    return group_by_model(sides)


def read_releases(store: Store, page: Page) -> tuple[str, list[Side], list[str]]:
    """The model that an address asks for, its releases in the order of time, and why others are
    left out. Of a model with more than MOST_RANKED the newest are shown."""
    groups = list_releases(store)
    if page.option("runs"):
        chosen = read_chosen(store, page)
        sides = sort_releases(list(chosen.sides.values()))
        known = next(
            (name for name, group in groups.items() if sides and _is_among(sides[-1], group)), ""
        )
        return known, sides, list(chosen.refused)
    model = page.option("model")
    if model and model not in groups:
        return "", [], [f"no run is of {model}"]
    # A trend takes two.
    several = (name for name, group in groups.items() if len(group) > 1)
    model = model or next(several, next(iter(groups), ""))
    every = groups.get(model, [])
    older = len(every) - MOST_RANKED
    left = [f"{older} older releases are not shown, but can be chosen"] if older > 0 else []
    return model, every[-MOST_RANKED:], left


def _is_among(side: Side, group: Sequence[Side]) -> bool:
    return any(side.run.path == other.run.path for other in group)


def chooser(store: Store, model: str, sides: Sequence[Side]) -> Any:
    """Which model, and which of its releases."""
    groups = list_releases(store)
    entries = [pairs.entry_of(side) for side in pairs.list_sides(store)]
    return html.Div(
        [
            html.Div(
                dmc.Select(
                    id="trend-model",
                    label="Model",
                    data=[{"value": name, "label": name} for name in groups],
                    value=model or None,
                    searchable=True,
                    allowDeselect=False,
                    placeholder="choose a model",
                ),
                className="chooser",
            ),
            html.Div(
                dmc.MultiSelect(
                    id="trend-runs",
                    label="Releases",
                    data=[{"value": entry, "label": entry} for entry in entries],
                    value=[pairs.entry_of(side) for side in sides],
                    maxValues=MOST_RANKED,
                    searchable=True,
                    hidePickedOptions=True,
                ),
                className="chooser wide",
            ),
        ],
        className="choosers",
    )


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The page of a model's releases."""
    model, sides, left = read_releases(store, page)
    parts: list[Any] = [
        heading("Trend", over=go_to("Compare", link("compare"))),
        chooser(store, model, sides),
    ]
    if left:
        parts.append(notice("Left out", *(html.P(f"{why}.") for why in left)))
    if len(sides) < 2:
        said = html.P("A trend takes two runs of a model, in the order in which they were begun.")
        return [*parts, notice("Choose two releases or more", said)]
    names = name_sides(sides)
    standings = [pairs.standing(store, side) for side in sides]
    judged = [pairs.judge(store, side) for side in sides]
    steps = [pairs.step(store, a, b) for a, b in itertools.pairwise(sides)]
    last = " ".join(write_step(steps[-1])[:3])
    return [
        *parts,
        html.P(f"{names[-1]} after {names[-2]}. {last}", className="verdict"),
        charts_card(standings, names),
        releases_card(standings, names, judged),
        *(
            step_card(step, before, after)
            for step, (before, after) in reversed(
                list(zip(steps, itertools.pairwise(names), strict=True))
            )
        ),
    ]


def charts_card(standings: Sequence[Standing], names: Sequence[str]) -> Any:
    """The headline numbers over the releases."""
    points = {
        measure: [read_point(standing, measure) for standing in standings] for measure in DRAWN
    }
    charts = [
        html.Figure(
            chart(
                draw_trend(names, points[measure], label, from_zero=measure in FROM_ZERO),
                f"{label} of each release, see the table",
            ),
            className="small-chart",
        )
        for measure, (label, _) in DRAWN.items()
    ]
    rows = [
        {"name": name, **point_row(standing)}
        for name, standing in zip(names, standings, strict=True)
    ]
    return card(
        "Over the releases",
        html.Div(charts, className="small-charts halves"),
        as_table({"name": "Release", **POINT_COLUMNS}, rows),
        summary="In the order in which the runs were begun, each with its 95% interval.",
    )


def releases_card(
    standings: Sequence[Standing], names: Sequence[str], judged: Sequence[Judged]
) -> Any:
    """Every release's own numbers and the gate's verdict, the newest first."""
    rows = []
    for name, standing, verdict in zip(names, standings, judged, strict=True):
        mark: Any = NOTHING if isinstance(verdict, Missing) else ship_mark(verdict)
        record = standing.side.record
        rows.append(
            {
                "name": go_to(name, link("run", standing.side.run.path.name)),
                "created": [
                    html.Span(record.created[:10], className="place"),
                    html.Span(f" {record.created[11:16]}", className="note"),
                ],
                "gate": mark,
                **show_numbers(standing),
            }
        )
    columns = {"name": "Release", "created": "Begun (UTC)", "gate": QUESTION, **COLUMNS}
    return card("Releases", table(columns, rows[::-1], apart=APART))


def step_card(step: Step, before: str, after: str) -> Any:
    """What changed from one release to the next: blocks, units and tokens."""
    said = write_step(step)
    rows = cost_rows(step)
    sides = [(side.run.path.name, side.model) for side in (step.a, step.b)]
    beside = go_to(
        "Side by side",
        link("compare", a=sides[0][0], model_a=sides[0][1], b=sides[1][0], model_b=sides[1][1]),
    )
    other = write_settings(step)
    return card(
        f"{before} → {after}",
        html.Ul([html.Li(sentence) for sentence in said], className="claims"),
        html.P(other, className="note") if other else None,
        table(COST_COLUMNS, rows, "Blocks and units newly broken or mended") if rows else None,
        *tokens_tables(step),
        beside=beside,
    )


def tokens_tables(step: Step) -> list[Any]:
    """The tokens that are newly broken, and those that were mended, each in its passage, which
    leads to the text."""
    if isinstance(step.tokens, Missing) or step.pair.same_model:
        return []
    found = []
    tokens = step.tokens
    for what, order, rows, total, side in (
        ("newly broken", "KL now", tokens.worst, tokens.broken, step.b),
        ("mended", "KL before", tokens.best, tokens.mended, step.a),
    ):
        if rows:
            counted = f"{len(rows)} of {total:,}" if len(rows) < total else f"all {total:,}"
            title = f"Tokens {what}: {counted}, the largest {order} first"
            shown = [token_row(row, side) for row in rows]
            found.append(table(TOKEN_COLUMNS, shown, title, folded=title))
    return found


def token_row(row: Mapping[str, Any], side: Side) -> dict[str, Any]:
    """A token in its passage. side: in whose text it is shown."""
    before, token, after = write_passage(row)
    where = link(
        "tokens",
        side.run.path.name,
        model=side.stored,
        window=row["window"],
        position=row["position"],
    )
    return {
        "text": html.Code(token),
        "passage": [f"…{before}", go_to(token, where), f"{after}…"],
        "before": write_number(row["kl_before"], ".4f"),
        "after": write_number(row["kl_after"], ".4f"),
    }


def register(app: Dash, store: Store) -> None:
    """Connect the choice of the model and of its releases."""

    @app.callback(
        Output("url", "href", allow_duplicate=True),
        Input("trend-model", "value"),
        Input("trend-runs", "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def choose_releases(model: str | None, chosen: Sequence[str] | None, search: str) -> Any:
        wanted = follow_releases(store, read_address("/trend", search), model, chosen or ())
        return no_update if wanted is None else link("trend", **wanted)


def follow_releases(
    store: Store, page: Page, model: str | None, chosen: Sequence[str]
) -> dict[str, Any] | None:
    """The options of the address at which these releases are shown; None where the page is there.
    A model that is chosen anew brings all of its own."""
    shown, sides, _ = read_releases(store, page)
    if model and model != shown:
        return {"model": model, "runs": ""}
    if list(chosen) == [pairs.entry_of(side) for side in sides]:
        return None
    return {"model": "", "runs": BETWEEN.join(chosen)}
