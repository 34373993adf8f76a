"""What is stored of a block's weights, a linear at a time, beside their 16 bits."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html
from pydantic import ValidationError

from awqscope.app.dashboard.jobs.moved import find_model
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.jobs.studies import StudyState
from awqscope.app.dashboard.pages.run import run_heading
from awqscope.app.dashboard.parts import card, fell_back, go_to, heading, notice, table
from awqscope.app.dashboard.sections.model_location import location_panel
from awqscope.app.dashboard.sections.studies.asking import follow_studies, list_states, study_card
from awqscope.app.dashboard.sections.weights.kept import kept_cards, worst_card
from awqscope.app.dashboard.sections.weights.linear import linear_cards, linears_table, read_damage
from awqscope.app.dashboard.urls import Page, link
from awqscope.app.store import RunSummary, Store
from awqscope.app.words.studies.weights import name_group, write_source
from awqscope.diagnose.runs.record import AnyRecord, Record
from awqscope.diagnose.studies.study import name_study
from awqscope.diagnose.studies.weights.answer import BlockWeights, GroupValues, LinearWeights
from awqscope.diagnose.studies.weights.searched import find_width, read_searched
from awqscope.mixedprec.words import write_share

SUMMARY = (
    "The codes of the run's checkpoint, or without one as its searches and its model give them, "
    "are set beside the 16-bit weights: a pass over the block's weights."
)

# What a run or a comparison itself holds, by the kind of its record.
KEPT = {
    "run": "What the run itself holds of them. Codes, values and heads take a look at the weights.",
    "compare": "What the comparison holds of its candidate's. Its codes and scales are not read "
    "here.",
}
NOTHING_KEPT = {
    "run": "The run holds nothing of this block's weights: all of its units are kept at 16 bits, "
    "or an earlier version made it.",
    "compare": "The comparison holds nothing of this block's weights: scales were folded into its "
    "norms, so that no linear can be set beside the reference's by itself.",
}

Row = Mapping[str, Any]


def block_ways(run: str, block: int, blocks: int) -> Any:
    """The ways to the block's own page, and to the weights of its neighbours."""
    ways = [go_to(f"All of block {block}", link("block", run, block))]
    for number, text in ((block - 1, "← Block {}"), (block + 1, "Block {} →")):
        if 0 <= number < blocks:
            ways.append(go_to(text.format(number), link("weights", run, number)))
    return html.Nav(ways, className="around", **{"aria-label": "Other blocks"})


def choose_linear(answer: BlockWeights, page: Page) -> LinearWeights:
    """The linear that the address asks for; else, of its unit or of the block, the one with the
    largest error."""
    by_name = {linear.linear: linear for linear in answer.linears}
    if page.option("linear") in by_name:
        return by_name[page.option("linear")]
    of_unit = [one for one in answer.linears if one.unit == page.option("unit")]
    return max(of_unit or answer.linears, key=lambda one: one.relative_error or 0.0)


def choose_group(linear: LinearWeights, page: Page) -> GroupValues | None:
    """The group that the address asks for, else the first; None of a linear without any."""
    named = {name_group(group): group for group in linear.groups}
    return named.get(page.option("group"), next(iter(linear.groups), None))


def read_weights(state: StudyState | None) -> BlockWeights | None:
    """The answer that a look has given, if this version can read it."""
    if state is None or state.answer is None:
        return None
    try:
        return BlockWeights.model_validate(state.answer)
    except ValidationError:
        return None


def looked_parts(store: Store, answer: BlockWeights, page: Page) -> list[Any]:
    """What a look has found."""
    run, why = page.run, name_study("why", page.block)
    linear = choose_linear(answer, page)
    group = choose_group(linear, page)
    parts: list[Any] = []
    asked, place = page.option("linear"), page.option("group")
    if asked not in ("", linear.linear):
        parts.append(fell_back(f"There is no linear {asked} in this block", linear.linear))
    elif page.option("unit") not in ("", *(one.unit for one in answer.linears)):
        unit = f"{page.block}.{page.option('unit')}"
        parts.append(fell_back(f"There is no unit {unit}", linear.linear))
    if group is not None and place not in ("", name_group(group)):
        said = f"Group {place} of {linear.linear} is none of those that are kept"
        parts.append(fell_back(said, f"row {group.row}, group {group.group}"))
    return [
        *parts,
        card("Linears", linears_table(answer, run, linear.linear), summary=write_source(answer)),
        html.H2(f"{page.block}.{linear.unit}: {linear.linear}", className="part"),
        *linear_cards(
            answer, linear, group, run, read_damage(store.study(run, why), linear.linear)
        ),
    ]


def kept_parts(store: Store, record: AnyRecord, page: Page) -> list[Any]:
    """What the run itself holds."""
    rows = [row for row in store.table(page.run, "weights") if row["block"] == page.block]
    if not rows:
        return [html.P(NOTHING_KEPT[record.kind], className="note")]
    asked, kind = page.option("linear"), page.option("unit")
    here = [row for row in rows if row["unit"] == f"{page.block}.{kind}"]
    chosen = next(
        (row for row in rows if row["linear"] == asked),
        max(here or rows, key=lambda row: row["relative_error"]),
    )
    if isinstance(record, Record):
        recipe = store.recipe(page.run)
        bits = find_width(recipe, page.block, chosen["linear"], record.spec.bits)
        searched = read_searched(store.find(page.run), page.block, bits)
        cards = kept_cards(store, page.run, chosen, searched.get(chosen["linear"]), bits)
    else:
        cards = [worst_card(chosen)]
    parts: list[Any] = []
    if asked not in ("", chosen["linear"]):
        parts.append(fell_back(f"There is no linear {asked} here", chosen["linear"]))
    elif kind and not here:
        said = f"The run holds nothing of a unit {page.block}.{kind}"
        parts.append(fell_back(said, chosen["linear"]))
    return [
        *parts,
        card(
            "Linears",
            kept_table(rows, page, chosen["linear"]),
            summary=KEPT[record.kind],
        ),
        html.H2(f"{chosen['unit']}: {chosen['linear']}", className="part"),
        *cards,
    ]


def kept_table(rows: Sequence[Row], page: Page, chosen: str) -> Any:
    """The linears of weights.parquet, each the way to what the run holds of it."""
    return table(
        {"linear": "Linear", "unit": "Unit", "error": "‖ΔW‖ / ‖W‖"},
        [
            {
                "class": "chosen" if row["linear"] == chosen else "",
                "linear": go_to(
                    row["linear"], link("weights", page.run, page.block, linear=row["linear"])
                ),
                "unit": row["unit"],
                "error": write_share(row["relative_error"], ".2%"),
            }
            for row in rows
        ],
        "The block's linears, in order of computation",
    )


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The page of a block's weights."""
    run: RunSummary = store.summary(page.run)
    record = run.record
    if record is None:
        return [heading(run.name), notice("This run cannot be shown", html.P(run.error))]
    blocks = record.source.blocks
    if page.block >= blocks:
        said = html.P(f"This model has blocks 0 to {blocks - 1}.")
        return [run_heading(run, "weights"), notice(f"No block {page.block} here", said)]
    title = f"Weights of block {page.block}"
    parts = [
        html.Div([run_heading(run, "weights", title), block_ways(run.name, page.block, blocks)])
    ]
    if not (record.is_done("search") and record.is_done("sweep")):
        said = html.P("They can be looked at once the run's search and sweep are done.")
        return [*parts, notice("Nothing to look at yet", said)]
    if not isinstance(record, Record):
        return [*parts, *kept_parts(store, record, page)]
    location = None if jobs is None else find_model(store, page.run)
    states = list_states(store, page)
    answer = read_weights(states[0])
    asking = study_card(
        states[0],
        "Look at the weights",
        SUMMARY,
        lambda _answer: [],
        button="Look at the weights",
        location=location,
    )
    panel = None if location is None else location_panel(location)
    ask = [part for part in (panel, asking) if part is not None]
    if answer is None:
        parts += [*ask, *kept_parts(store, record, page)]
    else:
        parts += [*looked_parts(store, answer, page), *ask]
    return [*parts, *follow_studies(states)]
