"""Up to twelve models side by side: which checkpoint to ship, by what it costs and how surely."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dash_mantine_components as dmc
from dash import Dash, Input, Output, State, html, no_update

from awqscope.app.dashboard import pairs
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.pages.compared import two_runs
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
from awqscope.app.dashboard.sections.gate.card import ship_mark
from awqscope.app.dashboard.urls import BETWEEN, Page, link, read_address
from awqscope.app.figures.compared.many import (
    draw_pareto,
    draw_small,
    has_room,
    share_scale,
    sort_points,
)
from awqscope.app.store import Store
from awqscope.app.words.compared.many_models import (
    APART,
    COLUMNS,
    DIFFERENCES,
    Cell,
    Judged,
    difference_cells,
    list_points,
    name_sides,
    number_cells,
    write_ranking,
)
from awqscope.app.words.compared.two_models import HOW
from awqscope.app.words.gate.ship import QUESTION
from awqscope.diagnose.compared.ranking import MOST_RANKED, Ranked, rank
from awqscope.diagnose.compared.standing import Standing
from awqscope.diagnose.gate.findings import Missing
from awqscope.diagnose.gate.paired import Side
from awqscope.diagnose.gate.shares import Cost
from awqscope.mixedprec.words import NOTHING, join_words, write_number, write_size

AXES = {"linear": "Linear", "log": "Log"}
# Of one model's blocks next to another's, in a table.
BLOCK_FORM = ".5f"


@dataclass(frozen=True)
class Chosen:
    """What an address asks to compare. sides: by entry. refused: why others cannot be, in words."""

    sides: Mapping[str, Side]
    refused: Sequence[str]


def read_chosen(store: Store, page: Page) -> Chosen:
    """The models at an address, MOST_RANKED at most, those that can be compared."""
    sides: dict[str, Side] = {}
    refused = []
    for entry in page.names("runs"):
        found = pairs.find_side(store, entry)
        if isinstance(found, str):
            refused.append(found)
        elif len(sides) == MOST_RANKED:
            refused.append(f"{entry} is one too many: {MOST_RANKED} are compared at most")
        else:
            sides[pairs.entry_of(found)] = found
    return Chosen(sides, refused)


def chooser(store: Store, page: Page, chosen: Chosen) -> Any:
    """Which models are compared, and which of them the others are held against."""
    entries = [pairs.entry_of(side) for side in pairs.list_sides(store)]
    shown = list(chosen.sides)
    return html.Div(
        [
            html.Div(
                dmc.MultiSelect(
                    id="many-runs",
                    label="Runs to compare",
                    data=[{"value": entry, "label": entry} for entry in entries],
                    value=shown,
                    maxValues=MOST_RANKED,
                    searchable=True,
                    hidePickedOptions=True,
                    placeholder="" if shown else "two to twelve",
                ),
                className="chooser wide",
            ),
            html.Div(
                dmc.Select(
                    id="many-baseline",
                    label="Held against",
                    data=[
                        {"value": "", "label": "the best of them"},
                        *({"value": entry, "label": entry} for entry in shown),
                    ],
                    value=find_baseline(page, shown),
                    allowDeselect=False,
                ),
                className="chooser",
            ),
        ],
        className="choosers",
    )


def find_baseline(page: Page, chosen: Sequence[str]) -> str:
    """Which of the chosen entries an address holds the others against; empty for the best."""
    asked = page.option("baseline")
    return asked if asked in chosen else ""


def list_left(page: Page, chosen: Chosen) -> list[str]:
    """Why what an address names is not on the page, in words."""
    asked = page.option("baseline")
    if asked in ("", *chosen.sides):
        return list(chosen.refused)
    return [*chosen.refused, f"{asked} is not among them: the others are held against the best"]


def follow_choice(
    page: Page, shown: Sequence[str], chosen: Sequence[str], baseline: str | None
) -> dict[str, Any] | None:
    """The options of the address at which these entries are compared; None where the page shows
    them, which leaves out some that its address names. shown: the entries that it compares."""
    base = baseline if baseline and baseline in chosen else ""
    if list(shown) == list(chosen) and find_baseline(page, shown) == base:
        return None
    return {"runs": BETWEEN.join(chosen), "baseline": base, "axis": page.option("axis")}


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The compare page: of two sides where the address names one, else of as many as it names."""
    if page.option("a") or page.option("b"):
        return two_runs.layout(store, page)
    chosen = read_chosen(store, page)
    parts: list[Any] = [
        heading(
            "Compare",
            over=go_to("Runs", link("runs")),
            beside=[go_to("One model over its releases", link("trend"))],
        ),
        chooser(store, page, chosen),
    ]
    left = list_left(page, chosen)
    if left:
        parts.append(notice("Left out", *(html.P(f"{why}.") for why in left)))
    if len(chosen.sides) < 2:
        return [
            *parts,
            notice(
                "Choose two runs or more",
                html.P(
                    "Of a run its mixed model is meant, of a comparison its candidate; "
                    "NAME:uniform is the uniform model of a run."
                ),
            ),
        ]
    return [*parts, *comparison(store, page, chosen)]


def comparison(store: Store, page: Page, chosen: Chosen) -> list[Any]:
    """Which to ship, and everything behind it."""
    ranked = rank_chosen(store, chosen, page.option("baseline"))
    sides = [one.standing.side for one in ranked]
    names, judged = name_sides(sides), [pairs.judge(store, side) for side in sides]
    said = write_ranking(ranked, names, judged)
    return [
        html.P(" ".join(said), className="verdict"),
        numbers_card(ranked, names, judged),
        differences_card(ranked, names),
        pareto_card(ranked, names),
        html.Div(blocks_card(store, sides, names, page.option("axis")), id="many-blocks"),
    ]


def rank_chosen(store: Store, chosen: Chosen, baseline: str) -> list[Ranked]:
    """The chosen models in their order, held against an entry, or against the best of them."""
    entries = list(chosen.sides)
    at = entries.index(baseline) if baseline in entries else None
    standings = [pairs.standing(store, side) for side in chosen.sides.values()]
    return rank(standings, at, partial(pairs.pair, store))


def numbers_card(ranked: Sequence[Ranked], names: Sequence[str], judged: Sequence[Judged]) -> Any:
    """Every model's own numbers and the gate's verdict, the one that loses least first."""
    rows = []
    for name, one, verdict in zip(names, ranked, judged, strict=True):
        side = one.standing.side
        cells = show_numbers(one.standing)
        mark: Any = NOTHING if isinstance(verdict, Missing) else ship_mark(verdict)
        rows.append({"name": go_to(name, link("run", side.run.path.name)), "gate": mark, **cells})
    unjudged = [
        html.P(f"The gate cannot judge {name}: {verdict.reason}.", className="note")
        for name, verdict in zip(names, judged, strict=True)
        if isinstance(verdict, Missing)
    ]
    return card(
        "Models",
        table({"name": "Model", "gate": QUESTION, **COLUMNS}, rows, apart=APART),
        *unjudged,
        summary=(
            "The least KL first, with 95% intervals by a bootstrap over windows. The gate is by "
            "each run's own policy.toml, or by the default policy."
        ),
    )


def show_numbers(standing: Standing) -> dict[str, Any]:
    """A model's own numbers as cells, and those that are saved apart."""
    cells = number_cells(standing)
    shown = {key: show_cell(cell) for key, cell in cells.items()}
    return shown | {"ppl_alone": cells["ppl"].value, "delta": cells["ppl"].note}


def show_cell(cell: Cell) -> Any:
    """A number with its interval below, and the text that it is of."""
    below = [(cell.note, "note bounds"), (cell.of and f" {cell.of}", "note")]
    spans = [html.Span(text, className=look) for text, look in below if text]
    return [cell.value, *spans] if spans else cell.value


def differences_card(ranked: Sequence[Ranked], names: Sequence[str]) -> Any:
    """Every model's numbers less the baseline's."""
    at = next(index for index, one in enumerate(ranked) if one.pair is None)
    base = ranked[at]
    rows = []
    for name, one in zip(names, ranked, strict=True):
        cells = {key: show_cell(cell) for key, cell in difference_cells(one, base).items()}
        rows.append({"name": name, **cells, "link": _write_link(base, one)})
    apart = [name for name, one in zip(names, ranked, strict=True) if not one.is_comparable]
    said = f"Each less {names[at]}, paired by token, with 95% intervals."
    if apart:
        said += f" Of {join_words(apart)} there is no difference: the tokens are others."
    return card(
        "Differences",
        table({"name": "Model", **DIFFERENCES, "link": ""}, rows),
        summary=said,
    )


def _write_link(base: Ranked, one: Ranked) -> Any:
    """The way to two models side by side; nothing for the baseline itself."""
    if one.pair is None:
        return ""
    sides = base.standing.side, one.standing.side
    options: dict[str, Any] = {}
    for key, side in zip(("a", "b"), sides, strict=True):
        options |= {key: side.run.path.name, f"model_{key}": side.model}
    return go_to("side by side", link("compare", **options))


def pareto_card(ranked: Sequence[Ranked], names: Sequence[str]) -> Any:
    """Size against damage, of the models that can be held against one another."""
    points = sort_points(list_points(ranked, names))
    numbered = not has_room(points)
    rows = [
        {
            "number": str(number),
            "name": point["name"],
            "size": write_size(point["bytes"]),
            "kl": write_number(point["kl"], BLOCK_FORM),
            "dominated": "yes" if point["dominated"] else "no",
        }
        for number, point in enumerate(points, 1)
    ]
    columns = {"name": "Model", "size": "Size", "kl": "KL", "dominated": "Dominated"}
    key = None
    if numbered:
        columns = {"number": "No.", **columns}
        key = html.Ol([html.Li(point["name"]) for point in points], className="key")
    out = [point["name"] for point in points if point["dominated"]]
    said = f"{join_words(out)}: another is no larger and loses no more." if out else ""
    left = len(ranked) - len(points)
    if left:
        said += f" {left} measured on other tokens {'is' if left == 1 else 'are'} not drawn."
    figure = draw_pareto(points, numbered=numbered)
    return card(
        "Size against damage",
        key,
        chart(figure, "Bytes against KL of each model, see the table"),
        as_table(columns, rows),
        summary=said.strip() or "None is dominated: whatever is smaller loses more.",
    )


def blocks_card(store: Store, sides: Sequence[Side], names: Sequence[str], axis: str) -> Any:
    """A small chart of the blocks of each model, all on one axis of KL."""
    costs = [store.block_costs(side.run.path.name, side.stored) for side in sides]
    known: dict[str, Mapping[int, Cost]] = {
        name: each for name, each in zip(names, costs, strict=True) if not isinstance(each, Missing)
    }
    scale = share_scale(list(known.values()), is_log=axis == "log")
    charts = [
        html.Figure(
            [
                html.Figcaption(name),
                chart(draw_small(each, scale), f"KL by block of {name}, see the table"),
            ],
            className="small-chart",
        )
        for name, each in known.items()
    ]
    unknown = [
        html.P(f"{name}: {each.reason}.", className="note")
        for name, each in zip(names, costs, strict=True)
        if isinstance(each, Missing)
    ]
    blocks = sorted({block for each in known.values() for block in each})
    rows = [
        {
            "block": str(block),
            **{
                name: write_number(each[block][0], BLOCK_FORM) if block in each else NOTHING
                for name, each in known.items()
            },
        }
        for block in blocks
    ]
    kinds = dict.fromkeys(f"{side.model}: {HOW[side.model]}" for side in sides)
    return card(
        "Block by block",
        html.Div(charts, className="small-charts"),
        *unknown,
        as_table({"block": "Block", **{name: name for name in known}}, rows),
        summary=f"KL by block, nats a token, all on one axis. Of {'; of '.join(kinds)}.",
        beside=switch("axis", "Axis of KL", AXES, axis),
    )


def register(app: Dash, store: Store) -> None:
    """Connect the choice of runs and of the axis."""

    @app.callback(
        Output("url", "href", allow_duplicate=True),
        Input("many-runs", "value"),
        Input("many-baseline", "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def choose_runs(chosen: Sequence[str] | None, baseline: str | None, search: str) -> Any:
        page = read_address("/compare", search)
        shown = list(read_chosen(store, page).sides)
        wanted = follow_choice(page, shown, chosen or (), baseline)
        return no_update if wanted is None else link("compare", **wanted)

    @app.callback(
        Output("many-blocks", "children"),
        Input({"type": "option", "name": "axis"}, "value"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def redraw_blocks(axis: str, search: str) -> Any:
        page = read_address("/compare", search)
        chosen = read_chosen(store, page)
        if len(chosen.sides) < 2:
            return no_update
        ranked = rank_chosen(store, chosen, page.option("baseline"))
        sides = [one.standing.side for one in ranked]
        return blocks_card(store, sides, name_sides(sides), axis)
