"""A prompt explained: where the quantized model parts, which block breaks it, what repairs it."""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, dcc, html, no_update, set_props

from awqscope.app.dashboard.asking import Asked, asking_button, asking_form
from awqscope.app.dashboard.jobs.explanations import (
    TOKENS,
    Explaining,
    check_question,
    discard,
    explain_again,
    list_explaining,
    start_explaining,
)
from awqscope.app.dashboard.jobs.moved import ModelLocation, find_model
from awqscope.app.dashboard.jobs.processes import find_reason
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.pages.failed import AGAIN, clicked_part, failed_buttons
from awqscope.app.dashboard.pages.run import run_heading
from awqscope.app.dashboard.pages.tokens import shade, show_line_ends
from awqscope.app.dashboard.parts import (
    as_table,
    card,
    chart,
    fell_back,
    go_to,
    heading,
    notice,
    table,
)
from awqscope.app.dashboard.sections.model_location import can_open, location_panel
from awqscope.app.dashboard.urls import Page, link, read_address
from awqscope.app.figures.tokens import draw_blame, draw_positions
from awqscope.app.store import RunSummary, Store, UnknownRunError
from awqscope.app.words.comparison import NO_SEARCHES
from awqscope.app.words.explanation import (
    mixed_mark,
    shorten,
    show_piece,
    write_blame,
    write_blocks,
    write_mixed,
    write_parting,
    write_repair,
    write_units,
)
from awqscope.diagnose.runs.record import Comparison
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.words import NOTHING, write_number

TICK = 1500
QUOTED = 70

Entry = Mapping[str, Any]


def question_card(run: str, location: ModelLocation) -> Any:
    """Where a prompt is typed; it stays there until another is."""
    return card(
        "Explain a prompt",
        location_panel(location),
        asking_form(
            "explain",
            html.Div(
                [
                    dmc.Textarea(
                        id="explain-prompt",
                        name="prompt",
                        label="Prompt",
                        autosize=True,
                        minRows=2,
                        maxRows=10,
                        description="As the model gets it: no chat template is added. Enter asks, "
                        "Shift and Enter begin a line.",
                        persistence=run,
                        persistence_type="session",
                    ),
                    dmc.NumberInput(
                        id="explain-tokens",
                        name="tokens",
                        label="Tokens",
                        description="to go on with",
                        value=TOKENS,
                        min=1,
                        allowDecimal=False,
                        persistence=run,
                        persistence_type="session",
                    ),
                ],
                className="asking",
            ),
            html.Div(
                [
                    asking_button(
                        "Explain", "explain-start", size="sm", disabled=not can_open(location)
                    ),
                    html.P(id="explain-said", className="said", role="status"),
                ],
                className="actions under",
            ),
            enter=True,
        ),
        summary="Both models go on with it, always taking the likeliest token. Where they part, "
        "every block is quantized alone and restored alone, and the cheapest repair is found.",
    )


def earlier_card(run: str, asked: Sequence[Explaining], store: Store, shown: str) -> Any:
    """Every explanation of the run, a line a prompt, each a link."""
    results = store.explained(run)
    rows = []
    for job in asked:
        result = results.get(job.name)
        entries = result["prompts"] if result else [{"prompt": text} for text in job.prompts]
        for number_, entry in enumerate(entries or [{"prompt": job.name}]):
            href = link("explain", run, shown=job.name, prompt=number_ or None)
            row = {
                "prompt": go_to(shorten(entry["prompt"], QUOTED), href),
                "class": "chosen" if job.name == shown else "",
            }
            rows.append(row | (_list_entry(entry) if result else {"parting": job.state}))
    columns = {
        "prompt": "Prompt",
        "parting": "Parts after",
        "block": "Block",
        "repair": "Cheapest repair",
        "mixed": "Recipe repairs",
    }
    return card("Explained so far", table(columns, rows), summary="The newest first.")


def _list_entry(entry: Entry) -> dict[str, str]:
    parting, repair = entry["parting"], entry["repair"]
    return {
        "parting": NOTHING if parting is None else str(parting["position"]),
        "block": write_blocks(entry),
        "repair": write_units(repair) if repair else NOTHING,
        "mixed": mixed_mark(entry),
    }


def entry_parts(entry: Entry, asked: Entry, run: str) -> list[Any]:
    """Everything on one prompt."""
    parting = entry["parting"]
    said = [write_blame(entry), write_repair(entry, asked), write_mixed(entry, asked)]
    parts = [
        card(
            f"“{shorten(entry['prompt'], QUOTED)}”",
            html.P(write_parting(entry, asked), className="verdict"),
            html.Ul([html.Li(sentence) for sentence in said if sentence], className="claims"),
        ),
        html.Div(
            [
                text_card("16-bit", entry, "reference"),
                text_card(f"{asked['bits']}-bit", entry, "uniform"),
            ],
            className="columns",
        ),
    ]
    contest = parting or entry["closest"]
    title = "The token where they part" if parting else "Where it came closest"
    parts.append(card(title, rivals_table(contest, asked)))
    if entry["blocks"]:
        parts.append(blame_card(entry, run))
    parts.append(positions_card(entry))
    return parts


def text_card(label: str, entry: Entry, name: str) -> Any:
    """The prompt and what a model goes on with; the reference's is coloured by KL."""
    pieces = entry["pieces"]
    if name == "reference":
        values = [piece["kl_uniform"] for piece in pieces]
        texts = [piece["text"] for piece in pieces]
    else:
        texts = [piece["text"] for piece in pieces[: entry["prompt_tokens"]]]
        texts += entry["uniform"]["pieces"]
        values = [None] * len(texts)
    largest = max((value for value in values if value is not None), default=0.0)
    parting = None if entry["parting"] is None else entry["prompt_tokens"] + entry["common"]
    spans = [
        html.Span(
            show_line_ends(text),
            className=f"t {shade(value, largest)}" + (" parting" * (position == parting)),
            **({} if value is None else {"title": f"KL {value:.4f}"}),
        )
        for position, (text, value) in enumerate(zip(texts, values, strict=True))
    ]
    start = entry["prompt_tokens"]
    summary = (
        "The stronger the orange, the further the quantized model is off there."
        if name == "reference"
        else "The token where it parts is framed in both."
    )
    return card(
        f"{label} continuation",
        html.Div(
            [html.Span(spans[:start], className="note"), *spans[start:]],
            className="text still",
            tabIndex=0,
            role="region",
            **{"aria-label": f"Prompt and {label} continuation"},
        ),
        summary=summary,
    )


def rivals_table(contest: Entry, asked: Entry) -> Any:
    """Two tokens side by side, by both models."""
    return table(
        {"token": "Next token", "reference": "16-bit", "uniform": f"{asked['bits']}-bit"},
        [
            {
                "token": html.Code(show_piece(rival["text"])),
                "reference": write_number(rival["probability_reference"], ".2%"),
                "uniform": write_number(rival["probability_uniform"], ".2%"),
            }
            for rival in (contest["reference"], contest["other"])
        ],
    )


def blame_card(entry: Entry, run: str) -> Any:
    """The blocks at the parting position."""
    blocks, parting = entry["blocks"], entry["parting"]
    rows = [
        {
            "block": go_to(f"Block {row['block']}", link("block", run, row["block"])),
            "alone": write_number(row["isolated_margin"], "+.3f"),
            "breaks": "breaks it" if row["breaks"] else "",
            "restored": write_number(row["restored_margin"], "+.3f"),
            "restores": "brings it back" if row["restores"] else "",
            "class": "flagged" if row["breaks"] and row["restores"] else "",
        }
        for row in blocks
    ]
    columns = {
        "block": "Block",
        "alone": "Margin, quantized alone",
        "breaks": "",
        "restored": "Margin, restored alone",
        "restores": "",
    }
    figure = draw_blame(blocks, parting["margin_reference"], parting["margin_uniform"])
    return card(
        "Which block",
        chart(figure, "Margin of the 16-bit model's token by block, see the table"),
        as_table(columns, rows),
        summary="How far the 16-bit model's token is before any other; below zero another one is "
        "preferred. A bar below zero breaks the token; a filled diamond above it brings it back.",
    )


def positions_card(entry: Entry) -> Any:
    """KL along the text."""
    pieces = entry["pieces"]
    parting = None if entry["parting"] is None else entry["prompt_tokens"] + entry["common"]
    known = [piece for piece in pieces if piece["kl_uniform"] is not None]
    after = [piece["kl_uniform"] for piece in known if piece["part"] != "prompt"]
    worst = max(known, key=lambda piece: piece["kl_uniform"])
    rows = [
        {
            "position": str(position),
            "text": html.Code(show_piece(piece["text"])),
            "part": piece["part"],
            "uniform": write_number(piece["kl_uniform"], ".4f"),
            "mixed": write_number(piece["kl_mixed"], ".4f"),
            "repaired": write_number(piece["kl_repaired"], ".4f"),
        }
        for position, piece in enumerate(pieces)
    ]
    columns = {
        "position": "Position",
        "text": "Token",
        "part": "Part",
        "uniform": "KL, uniform",
        "mixed": "KL, recipe",
        "repaired": "KL, repair",
    }
    return card(
        "KL by token",
        chart(draw_positions(pieces, parting), "KL by token of the text, see the table"),
        as_table(columns, rows),
        summary=f"Of what is predicted in each token's place: {sum(after) / len(after):.4f} nats "
        f"on average over the continuation, the most at “{show_piece(worst['text'])}” "
        f"({worst['kl_uniform']:.3f}). On the 16-bit model's text; grey is the prompt.",
    )


def find_shown(asked: Sequence[Explaining], page: Page) -> Explaining | None:
    """The explanation that an address asks for, else the newest."""
    named = [job for job in asked if job.name == page.option("shown")]
    return next(iter([*named, *asked]), None)


def stamp(asked: Sequence[Explaining]) -> str:
    """What tells one state of all this from the next."""
    return repr([(job.name, job.state, job.log[-QUOTED:]) for job in asked])


def body(store: Store, page: Page, asked: Sequence[Explaining], *, can_act: bool) -> Any:
    """The explanation shown and the list of all; can_act: whether anything may be asked."""
    job = find_shown(asked, page)
    if job is None:
        return notice("Nothing is explained yet", html.P("What is asked here is kept here."))
    parts: list[Any] = [earlier_card(page.run, asked, store, job.name)]
    result = store.explained(page.run).get(job.name)
    if result is not None:
        entries = result["prompts"]
        entry = entries[min(page.number("prompt") or 0, len(entries) - 1)]
        parts = [*entry_parts(entry, result, page.run), *parts]
    elif job.state == "running":
        last = job.log.strip().splitlines()[-1:] or ["starting"]
        text = shorten(" ".join(job.prompts), QUOTED)
        parts.insert(0, notice(f"◐ Explaining “{text}”", html.P(last[0])))
    else:
        why = find_reason(job.log) or "Its log says why."
        log = html.Details([html.Summary("Log"), html.Pre(job.log, tabIndex=0)])
        asked_for = html.P(f"“{shorten(' '.join(job.prompts), QUOTED)}”") if job.prompts else None
        ways = failed_buttons("explain-failed", job.name) if can_act else None
        title = f"✕ {job.name} was not explained"
        parts.insert(0, notice(title, asked_for, html.P(why), ways, log, tone="bad"))
    return html.Div(parts)


def is_busy(asked: Sequence[Explaining]) -> bool:
    """Whether anything is under way."""
    return any(job.state == "running" for job in asked)


def is_ready(run: RunSummary) -> bool:
    """Whether a run has what explaining needs."""
    record = run.record
    return record is not None and all(record.is_done(name) for name in ("search", "sweep"))


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The page where prompts are explained."""
    run = store.summary(page.run)
    if run.record is None:
        return [heading(run.name), notice("This run cannot be shown", html.P(run.error))]
    parts: list[Any] = [run_heading(run, "explain", "Explain")]
    if isinstance(run.record, Comparison):
        return [*parts, notice("Nothing can be explained here", html.P(NO_SEARCHES))]
    if not is_ready(run):
        said = html.P("Search and sweep must be done first.")
        return [*parts, notice("Nothing can be explained yet", said)]
    if jobs is not None:
        parts.append(question_card(run.name, find_model(store, run.name)))
    asked = list_explaining(store, page.run)
    named, found = page.option("shown"), find_shown(asked, page)
    if named and found is not None and found.name != named:
        parts.append(fell_back(f"There is no explanation “{named}”", f"{found.name}, the newest,"))
    return [
        *parts,
        html.Div(
            body(store, page, asked, can_act=jobs is not None),
            id="explain-body",
            **{"aria-live": "polite"},
        ),
        dcc.Interval(id="explain-tick", interval=TICK, disabled=not is_busy(asked)),
        dcc.Store(id="explain-seen", data=stamp(asked)),
    ]


def register(app: Dash, store: Store, jobs: Jobs | None) -> None:
    """Connect the look at how far explanations are, and the button that asks for one."""

    @app.callback(
        Output("explain-body", "children"),
        Output("explain-tick", "disabled"),
        Output("explain-seen", "data"),
        Input("explain-tick", "n_intervals"),
        State("explain-seen", "data"),
        State("url", "pathname"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def follow(_ticks: int, seen: str, path: str, search: str) -> Any:
        page = read_address(path, search)
        try:
            asked = list_explaining(store, page.run)
            if stamp(asked) == seen:
                return no_update, no_update, no_update
            shown = body(store, page, asked, can_act=jobs is not None)
            return shown, not is_busy(asked), stamp(asked)
        except (InputError, LookupError, OSError):
            return no_update, True, no_update

    if jobs is None:
        return

    @app.callback(
        Output("url", "href", allow_duplicate=True),
        Output("explain-said", "children"),
        Input("explain-asked", "data"),
        running=[(Output("explain-start", "loading"), True, False)],
        prevent_initial_call=True,
    )
    def start(asked: Asked | None) -> Any:
        if not asked:
            return no_update, no_update
        run, values = read_address(asked["path"], "").run, asked["values"]
        try:
            name = start_explaining(
                store, run, *check_question(values.get("prompt"), values.get("tokens"))
            )
        except UnknownRunError:
            return no_update, "Not started: the run is gone."
        except InputError as error:
            return no_update, f"Not started: {error}."
        return link("explain", run, shown=name), ""

    @app.callback(
        Output("url", "href", allow_duplicate=True),
        Output("explain-said", "children", allow_duplicate=True),
        Input({"type": "explain-failed", "name": ALL, "act": ALL}, "n_clicks"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def mend(_clicks: list[int | None], path: str) -> Any:
        chosen = clicked_part()
        if chosen is None:
            return no_update, no_update
        run, (name, act) = read_address(path, "").run, chosen
        try:
            if act == AGAIN:
                explain_again(store, run, name)
            else:
                discard(store, run, name)
        except (InputError, UnknownRunError) as error:
            return no_update, f"{error}."
        shown = name if act == AGAIN else None
        search = link("explain", run, shown=shown).partition("?")[2]
        set_props("address", {"data": {"path": path, "search": f"?{search}"}})
        return no_update, ""
