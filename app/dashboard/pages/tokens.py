"""The text itself: which windows and tokens the quantized model reads differently, and why."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from dash import ALL, Dash, Input, Output, State, dcc, html, no_update

from awqscope.app.dashboard.components import Text
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.pages.run import run_heading
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
from awqscope.app.dashboard.sections.token_lists import (
    MEASURES,
    filters_card,
    lists,
    read_question,
    write_finds,
)
from awqscope.app.dashboard.urls import Page, link, query, read_address
from awqscope.app.figures.tokens import draw_token
from awqscope.app.store import RunSummary, Store
from awqscope.app.token_index import TokenIndex, TokenQuestion
from awqscope.app.words.compared.comparison import label_models, name_model
from awqscope.app.words.numbers import show_line_ends, show_token
from awqscope.app.words.run import shade, token_summary, token_value
from awqscope.app.words.texts import name_texts
from awqscope.diagnose.runs.record import MIXED, UNIFORM, AnyRecord, Comparison
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.words import NOTHING, write_number, write_share

Row = Mapping[str, Any]


def describe_token(row: Row, quantized: str) -> str:
    """A token's numbers in a line, for the hover, with what each model would have said. quantized:
    what the quantized model is called."""
    if row["kl_uniform"] is None:
        return "context only"
    kl, nll = (
        f"KL {row['kl_uniform']:.4f}",
        f"{row['nll_reference']:.3f} → {row['nll_uniform']:.3f}",
    )
    if row["kl_mixed"] is not None:
        kl += f", mixed {row['kl_mixed']:.4f}"
        nll += f", mixed {row['nll_mixed']:.3f}"
    said = f"{kl}; NLL {nll}"
    for key, name in (("top_reference", "16-bit"), ("top_uniform", quantized)):
        if row.get(key):
            tops = "  ".join(
                f"{show_token(top['text'])} {top['probability']:.0%}" for top in row[key]
            )
            said += f"\n{name}: {tops}"
    return said


def text_view(
    rows: Sequence[Row],
    question: TokenQuestion,
    chosen: int | None,
    found: Collection[int],
    quantized: str,
) -> Text:
    """A window's text, coloured by what quantization does to each token. found: positions to
    mark. quantized: what the quantized model is called."""
    values = [token_value(row, question.measure, question.model) for row in rows]
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    tokens = [
        (
            row["position"],
            show_line_ends(row["text"]),
            f"t {shade(value, largest)}"
            + " here" * (row["position"] == chosen)
            + " found" * (row["position"] in found),
            describe_token(row, quantized),
        )
        for row, value in zip(rows, values, strict=True)
    ]
    label = "The text. Arrow keys move from token to token, Enter shows one."
    return Text(rows[0]["window"], tokens, label)


def token_card(row: Row, run: str, record: AnyRecord) -> Any:
    """One token: what both models expected here, and which block's repair would restore it."""
    labels = {model: text.capitalize() for model, text in label_models(record).items()}
    if isinstance(record, Comparison):
        labels.pop(MIXED)
    position = row["position"]
    title = f"Token {position}: {show_token(row['text'])}"
    if row["kl_uniform"] is None:
        return card(
            title, summary="The first token of a window is context only: nothing predicts it."
        )
    parts: list[Any] = [
        table(
            {"what": "", **labels},
            [
                {
                    "what": "NLL of this token",
                    "reference": write_number(row["nll_reference"], ".4f"),
                    "uniform": write_number(row["nll_uniform"], ".4f"),
                    "mixed": write_number(row["nll_mixed"], ".4f"),
                },
                {
                    "what": "KL of the prediction",
                    "uniform": write_number(row["kl_uniform"], ".4f"),
                    "mixed": write_number(row["kl_mixed"], ".4f"),
                },
                {
                    "what": "Likeliest next token",
                    "uniform": _say_agreement(row["agree_uniform"]),
                    "mixed": _say_agreement(row["agree_mixed"]),
                },
            ],
        )
    ]
    reference, uniform = row.get("top_reference"), row.get("top_uniform")
    if reference and uniform:
        expected = predictions(reference, uniform, row["token"], labels[UNIFORM])
        parts += [html.H3("What each model expected here"), expected]
    parts.append(blame(row, run))
    return card(title, *parts, summary=token_summary(row))


def _say_agreement(agrees: bool | None) -> str:
    return NOTHING if agrees is None else "the same" if agrees else "another"


def predictions(
    reference: Sequence[Row], uniform: Sequence[Row], actual: int, quantized: str
) -> Any:
    """The five likeliest tokens of both models side by side. quantized: what the second is
    called."""

    columns = {"reference": "16-bit", "uniform": quantized}

    def cells(model: str, top: Row) -> dict[str, Any]:
        token, chance = show_token(top["text"]), write_share(top["probability"])
        is_actual = top["token"] == actual
        return {
            model: [html.Code(token), f" {chance}{' ✓' * is_actual}"],
            f"{model} token": token,
            f"{model} chance": chance,
            f"{model} actual": "yes" if is_actual else "no",
        }

    def apart(model: str, title: str) -> dict[str, str]:
        return {
            f"{model} token": title,
            f"{model} chance": f"{title}: probability",
            f"{model} actual": f"{title}: came next",
        }

    return table(
        {"rank": "", **columns},
        [
            {"rank": str(rank), **cells("reference", a), **cells("uniform", b)}
            for rank, (a, b) in enumerate(zip(reference, uniform, strict=True), 1)
        ],
        apart={model: apart(model, title) for model, title in columns.items()},
    )


def blame(row: Row, run: str) -> Any:
    """The blocks' shares in one token's damage, as a chart and a table."""
    alone, restored = row.get("block_kl"), row.get("restored_kl")
    if not alone:
        return None
    lines = [
        {
            "block": go_to(f"Block {block}", link("block", run, block)),
            "alone": write_number(value, ".4f"),
            "restored": write_number(restored[block], ".4f") if restored else NOTHING,
        }
        for block, value in enumerate(alone)
    ]
    return html.Div(
        [
            html.H3("Which block"),
            chart(draw_token(alone, restored, row["kl_uniform"]), "KL by block, see the table"),
            as_table({"block": "Block", "alone": "Alone", "restored": "If restored"}, lines),
        ]
    )


def window_card(
    store: Store, run: RunSummary, window: int, chosen: int | None, question: TokenQuestion
) -> Any:
    """The text of a window, coloured."""
    assert run.record is not None
    rows = store.window(run.name, window)
    found: Collection[int] = ()
    if question.is_filter:
        found = frozenset(store.found_tokens(run.name, window, question))
    what, better = MEASURES[question.measure], name_model(question.model, run.record)
    blue = f" (blue: {better} does better)" if question.measure == "delta_nll" else ""
    marked = f" {len(found)} found here are underlined." if question.is_filter else ""
    text = name_texts(run.record).of(window)
    return card(
        f"Window {window}",
        text_view(rows, question, chosen, found, label_models(run.record)[UNIFORM]),
        summary=[
            f"{len(rows)} tokens of ",
            html.Code(text),
            f". The stronger the orange, the larger the {what} in {better}{blue}.{marked} "
            "Click a token, or move with the arrow keys and press Enter.",
        ],
    )


def choose_token(
    store: Store, run: RunSummary, page: Page, index: TokenIndex, question: TokenQuestion
) -> tuple[int, int, Any]:
    """The window and the token to show, and what is said where an address asks for another: the
    worst stand in for what is not there."""
    every = store.token_index(run.name)
    assert every is not None
    asked, position = page.number("window"), page.number("position")
    said = None
    window = asked if asked in {row["window"] for row in every.windows} else None
    if window is None:
        window, position = (index.windows or every.windows)[0]["window"], None
        if asked is None and page.number("position") is not None:
            said = fell_back("A token is of a window, and none is named", "the worst")
        elif asked is not None:
            said = fell_back(f"There is no window {asked}", f"window {window}, the worst,")
    rows = store.window(run.name, window)
    if position is not None and position >= len(rows):
        said = fell_back(
            f"Window {window} has no token {position}, only 0 to {len(rows) - 1}", "the worst"
        )
        position = None
    if position is None:
        found = store.found_tokens(run.name, window, question)
        position = worst_position(rows, question, found or range(len(rows)))
    return window, position, said


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The tokens page."""
    run = store.summary(page.run)
    if run.record is None:
        return [heading(run.name), notice("This run cannot be shown", html.P(run.error))]
    every = store.token_index(run.name)
    if every is None or not every.windows:
        said = html.P("The sweep writes them: they appear here when it is done.")
        return [run_heading(run, "tokens", "Tokens"), notice("No tokens measured yet", said)]
    question = read_question(page, every.has_mixed)
    index = store.token_index(run.name, question)
    assert index is not None
    window, chosen, said = choose_token(store, run, page, index, question)
    row = store.window(run.name, window)[chosen]
    return [
        run_heading(run, "tokens", "Tokens"),
        dcc.Store(id="token-chosen", data={"window": window, "position": chosen}),
        said,
        filters_card(run.record, every, question),
        html.P(write_finds(index, question, run.record), id="token-finds", className="finds"),
        html.Div(
            [
                html.Div(window_card(store, run, window, chosen, question), id="window-card"),
                html.Div(
                    token_card(row, run.name, run.record),
                    id="token-card",
                    **{"aria-live": "polite"},
                ),
            ],
            className="reading",
        ),
        html.Div(lists(index, run, window, question), id="token-lists", className="columns"),
    ]


def worst_position(rows: Sequence[Row], question: TokenQuestion, among: Iterable[int]) -> int:
    """The position of the largest damage of a window, `among` these."""

    def damage(position: int) -> float:
        value = token_value(rows[position], question.measure, question.model)
        return float("-inf") if value is None else value

    return max(among, key=damage)


def register(app: Dash, store: Store) -> None:
    """Connect what is asked of the text, and the token that is chosen in it."""

    @app.callback(
        Output("window-card", "children"),
        Output("token-lists", "children"),
        Output("token-finds", "children"),
        Input({"type": "option", "name": ALL}, "value"),
        State({"type": "option", "name": ALL}, "id"),
        State("token-chosen", "data"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def ask(
        values: Sequence[Any],
        ids: Sequence[Mapping[str, str]],
        chosen: Mapping[str, int],
        path: str,
    ) -> Any:
        given = {key["name"]: value for key, value in zip(ids, values, strict=True)}
        try:
            page = read_address(path, query("tokens", **given))
            run, every = store.summary(page.run), store.token_index(page.run)
            if every is None or run.record is None:
                return no_update, no_update, no_update
            question = read_question(page, every.has_mixed)
            index = store.token_index(page.run, question)
            assert index is not None
            window, position = int(chosen["window"]), int(chosen["position"])
            return (
                window_card(store, run, window, position, question),
                lists(index, run, window, question),
                write_finds(index, question, run.record),
            )
        except (InputError, LookupError, OSError):
            return no_update, no_update, no_update

    @app.callback(
        Output("token-card", "children"),
        Input("token-chosen", "data"),
        State("url", "pathname"),
        prevent_initial_call=True,
    )
    def show_token_card(chosen: Mapping[str, int], path: str) -> Any:
        page = read_address(path, "")
        try:
            record = store.summary(page.run).record
            if record is None:
                return no_update
            rows = store.window(page.run, int(chosen["window"]))
            return token_card(rows[int(chosen["position"])], page.run, record)
        except (InputError, LookupError, OSError):
            return no_update
