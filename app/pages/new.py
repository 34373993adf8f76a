"""A run to start: the form for `awqscope run`, and what is shown until the run has begun."""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Dash, Input, Output, State, ctx, html, no_update, set_props

from app.jobs import Jobs
from app.pages.run import log_details
from app.parts import go_to, heading, notice
from app.requests import FLAGS, RefusedError, RunRequest, read_request, request_like, suggest_name
from app.store import Store, UnknownRunError
from app.urls import Page, link, read_address
from mixedprec.dtypes import AUTO, LARGEST
from mixedprec.errors import InputError
from mixedprec.scheme import BITS, GROUP_SIZES

MORE = (
    ("Calibration", ("calib_windows", "calib_seq_len")),
    ("What is flagged", ("z", "ratio", "delta_ppl", "top_k")),
    ("What is repaired", ("whole_blocks", "keep_fp16", "verify_units")),
    ("How it is carried out", ("seed", "max_memory")),
)
GROUPS = (
    ("Model", ("model", "name")),
    ("Texts", ("calib", "valid", "windows", "seq_len")),
    ("Quantization", ("bits", "rescue_bits", "group_size", "symmetric", "dtype")),
)
HINTS = {
    "Texts": "Each is wikitext2[:SPLIT], a .txt, .jsonl or .parquet file on this machine, or "
    "hub:NAME[:CONFIG]:SPLIT:COLUMN.",
}
# field -> its label and what it means.
WORDS = {
    "model": ("Model", "A directory on this machine, or an id on the Hugging Face hub."),
    "name": ("Name of the run", "Left empty, it is made from the model's."),
    "calib": ("Calibration text", "What AWQ chooses its scales on."),
    "valid": ("Validation text", "What perplexity and KL are measured on."),
    "windows": ("Windows", "Spread over the validation text. Left empty: all of it."),
    "seq_len": ("Tokens in a window", "Left empty: 2048, or the model's maximum."),
    "bits": ("Bits", "Of every unit that is not promoted."),
    "rescue_bits": ("Bits of promoted units", "Symmetric. Checkpoints are written for 4 and 8."),
    "group_size": ("Group size", "Input channels that share a scale."),
    "symmetric": ("Symmetric", "No zero points at the low width."),
    "dtype": (
        "Type",
        "That the checkpoint stores and is served in; bfloat16 holds what passes float16's 65,504.",
    ),
    "calib_windows": ("Calibration windows", "Spread over the calibration text."),
    "calib_seq_len": ("Tokens in a calibration window", "Cut to the model's maximum."),
    "z": ("Robust z-score", "A block is flagged from this on, by log KL …"),
    "ratio": ("Times the median", "… if it also is so many times the other blocks' KL."),
    "delta_ppl": ("ΔPPL above", "Flags any block whose ΔPPL alone is above this."),
    "top_k": ("Worst blocks", "Flags so many, instead of asking which stand out."),
    "whole_blocks": ("Promote whole blocks", "Not the fewest of their units that repair them."),
    "keep_fp16": ("Units kept at 16 bits", "Such as 3.down; Enter after each."),
    "verify_units": ("Units measured exactly", "To check the estimates of the others."),
    "seed": ("Seed", "Of the bootstrap and of sampled tokens."),
    "max_memory": (
        "Memory",
        "What a run may hold, of the host and of a device; streams that do not fit go to files in "
        "the run directory. Workers share it.",
    ),
}
LEAST = {"windows": 2, "seq_len": 2, "calib_windows": 1, "calib_seq_len": 1}
DECIMALS = ("z", "ratio", "delta_ppl")
WIDTHS = ("bits", "rescue_bits")


def form_field(key: str, value: Any, like: str) -> Any:
    """The input of a field, holding `value`; what was typed is there again after a way back to the
    same form."""
    label, description = WORDS[key]
    words: dict[str, Any] = {"label": label, "description": description}
    words |= {"persistence": like or "new", "persistence_type": "session"}
    if key in FLAGS:
        return dmc.Switch(id={"type": "new-flag", "field": key}, checked=value, **words)
    words["id"] = {"type": "new", "field": key}
    if key == "keep_fp16":
        return dmc.TagsInput(value=list(value), acceptValueOnBlur=True, **words)
    if key in WIDTHS or key == "group_size":
        choices = list(BITS) if key in WIDTHS else list(GROUP_SIZES)
        return dmc.Select(
            data=[{"value": str(n), "label": choice_label(key, n)} for n in choices],
            value=str(value),
            allowDeselect=False,
            **words,
        )
    if key == "dtype":
        types = {AUTO: "the model's own", **{name: name for name in LARGEST}}
        return dmc.Select(
            data=[{"value": name, "label": label} for name, label in types.items()],
            value=value,
            allowDeselect=False,
            **words,
        )
    if isinstance(value, str):
        # A model's path is no sentence.
        return dmc.TextInput(
            value=value,
            required=key == "model",
            spellCheck=False,
            autoComplete="off",
            debounce=300,
            **words,
        )
    return dmc.NumberInput(
        value="" if value is None else value,
        allowDecimal=key in DECIMALS,
        min=LEAST.get(key, 0),
        clampBehavior="none",
        step=0.5 if key in DECIMALS else 1,
        **words,
    )


def choice_label(key: str, value: int) -> str:
    """How a width or a group size is called."""
    if key in WIDTHS:
        return f"{value} bits"
    return "one group a row" if value == -1 else str(value)


def field_group(title: str, keys: Sequence[str], request: RunRequest, like: str) -> html.Fieldset:
    """Fields that belong together."""
    fields = [form_field(key, getattr(request, key), like) for key in keys]
    return html.Fieldset(
        [
            html.Legend(title),
            html.P(HINTS[title], className="summary") if title in HINTS else None,
            html.Div(fields, className="fields"),
        ]
    )


def form(request: RunRequest, like: str = "", texts: int = 1) -> list[Any]:
    """The form, filled in as `request`; like: the run it was taken from, which was measured on
    so many `texts`."""
    taken_from: list[Any] = (
        ["Filled in as ", go_to(like, link("run", like)), " was."] if like else []
    )
    if texts > 1:
        taken_from.append(f" That one was measured on {texts} texts; this form takes the first.")
    return [
        heading("New run", over=go_to("Runs", link("runs"))),
        html.P(
            [
                "Measures what AWQ costs every block of a model, repairs what stands out, and "
                "proves the checkpoint. It goes on when this page or the dashboard is closed. ",
                *taken_from,
            ],
            className="summary",
        ),
        html.Div(
            [
                *(field_group(title, keys, request, like) for title, keys in GROUPS),
                html.Details(
                    [
                        html.Summary("More options"),
                        *(field_group(title, keys, request, like) for title, keys in MORE),
                    ],
                    id="new-more",
                ),
                html.Div(
                    [
                        dmc.Button("Start", id="new-start"),
                        html.P(id="new-said", className="said", role="alert"),
                    ],
                    className="start",
                ),
            ],
            className="form",
        ),
    ]


def read_form(
    values: Sequence[Any],
    ids: Sequence[Mapping[str, str]],
    flags: Sequence[Any],
    flag_ids: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """field -> value of the form as its inputs hold it."""
    found = {key["field"]: value for key, value in zip(ids, values, strict=True)}
    return found | {key["field"]: value for key, value in zip(flag_ids, flags, strict=True)}


def write_problems(problems: Mapping[str, str]) -> str:
    """How many fields need another look, and which."""
    names = ", ".join(WORDS[key][0] for key in WORDS if key in problems)
    return f"Not started. See {names}." if problems else ""


def find_phase(alive: bool, state: str | None) -> str:
    """What to show of a run that was just started: `begun`, `starting` or, if its process ended
    without, `ended`. state: the run's, if it is in the listing."""
    if state in ("running", "done"):
        return "begun"
    return "starting" if alive else "ended"


def read_phase(store: Store, jobs: Jobs, name: str) -> str:
    """`find_phase` of a run, now."""
    # Asked first: a process that ends in between has left its run behind.
    alive = jobs.is_alive(name)
    try:
        state = store.summary(name).state
    except UnknownRunError:
        state = None
    return find_phase(alive, state)


def find_reason(tail: str) -> str:
    """What a command said at its end, if it ended with the one line for what a user can mend."""
    start, _, said = (tail.splitlines() or [""])[-1].partition("awqscope: ")
    return f"{said[:1].upper()}{said[1:]}." if said and not start else ""


def started_panel(phase: str, name: str, tail: str, back: Any) -> list[Any]:
    """A run between the click and its first record, or why it came to none; back: the way to where
    it was started."""
    if phase == "begun":
        return [notice("It has begun", html.P(go_to(f"Open {name}", link("run", name))))]
    if phase == "starting":
        said = html.P("Opening the model and the texts. The run's page follows by itself.")
        return [notice("Starting", said), log_details(tail, is_open=True)]
    why = html.P(
        (find_reason(tail) or "Its log says why.")
        if tail
        else "No run of this name was started from here."
    )
    return [
        notice(
            "It did not begin" if tail else "Nothing to wait for", why, html.P(back), tone="bad"
        ),
        log_details(tail, is_open=True),
    ]


def follow_run(store: Store, jobs: Jobs, page: Page) -> tuple[str, list[Any]]:
    """The phase of the run that a page waits for, and the panel that shows it."""
    name = page.option("started")
    phase = read_phase(store, jobs, name)
    if any(run.name == name for run in store.list_runs()):
        back = go_to(f"Back to {name}", link("run", name))
    else:
        back = go_to("Back to the form", link("new", like=page.option("like")))
    return phase, started_panel(phase, name, jobs.log_tail(name), back)


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The form, or the run that it has just started."""
    assert jobs is not None
    started, like = page.option("started"), page.option("like")
    if started:
        over = [go_to("Runs", link("runs")), " / ", go_to("New run", link("new"))]
        panel = follow_run(store, jobs, page)[1]
        return [heading(started, over=over), html.Div(panel, id="started-panel")]
    try:
        record = store.summary(like).record if like else None
    except UnknownRunError:
        record = None
    if record is None:
        return form(RunRequest())
    valid = record["spec"].get("valid", "")
    return form(request_like(record["spec"]), like, 1 if isinstance(valid, str) else len(valid))


def register(app: Dash, store: Store, jobs: Jobs) -> None:
    """Connect what starts and stops runs."""

    @app.callback(
        Output({"type": "new", "field": "name"}, "placeholder"),
        Input({"type": "new", "field": "model"}, "value"),
    )
    def suggest(model: Any) -> str:
        return suggest_name(str(model), jobs.taken()) if model else ""

    @app.callback(
        Output("url", "href", allow_duplicate=True),
        Output({"type": "new", "field": ALL}, "error"),
        Output("new-more", "open"),
        Output("new-said", "children"),
        Input("new-start", "n_clicks"),
        State({"type": "new", "field": ALL}, "value"),
        State({"type": "new", "field": ALL}, "id"),
        State({"type": "new-flag", "field": ALL}, "checked"),
        State({"type": "new-flag", "field": ALL}, "id"),
        State("url", "search"),
        running=[(Output("new-start", "loading"), True, False)],
        prevent_initial_call=True,
    )
    def start(
        clicks: int | None,
        values: list[Any],
        ids: list[dict[str, str]],
        flags: list[Any],
        flag_ids: list[dict[str, str]],
        search: str | None,
    ) -> Any:
        if not clicks:
            return no_update, [no_update] * len(ids), no_update, no_update
        request, problems = read_request(read_form(values, ids, flags, flag_ids))
        said = ""
        href: Any = no_update
        try:
            name = jobs.start(request, problems)
            href = link("new", started=name, like=read_address("/new", search).option("like"))
        except RefusedError as error:
            problems = dict(error.fields)
            said = write_problems(problems)
        except InputError as error:
            said = f"Not started: {error}."
        hidden = {key for _, keys in MORE for key in keys}
        is_open = True if hidden & set(problems) else no_update
        return href, [problems.get(key["field"], "") for key in ids], is_open, said

    @app.callback(
        Output("url", "href", allow_duplicate=True),
        Output("live", "disabled", allow_duplicate=True),
        Input("here", "data"),
        prevent_initial_call=True,
    )
    def follow(here: dict[str, Any]) -> Any:
        page = read_address(here["path"], here["search"])
        if page.name != "new" or not page.option("started"):
            return no_update, no_update
        phase, panel = follow_run(store, jobs, page)
        if phase == "begun":
            return link("run", page.option("started")), no_update
        set_props("started-panel", {"children": panel})
        return no_update, phase == "ended"

    @app.callback(
        Output("url", "href", allow_duplicate=True),
        Output("job-said", "children"),
        Input({"type": "resume", "name": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )
    def resume(_clicks: list[int | None]) -> Any:
        name = clicked()
        if name is None:
            return no_update, no_update
        try:
            jobs.resume(name)
        except (InputError, UnknownRunError) as error:
            return no_update, f"Not started: {error}."
        return link("new", started=name), ""

    @app.callback(
        Output("job-said", "children", allow_duplicate=True),
        Input({"type": "cancel", "name": ALL}, "submit_n_clicks"),
        prevent_initial_call=True,
    )
    def cancel(_clicks: list[int | None]) -> Any:
        name = clicked()
        if name is None:
            return no_update
        try:
            jobs.cancel(name)
        except (InputError, UnknownRunError) as error:
            return f"Not stopped: {error}."
        return "Asked to stop; this page shows when it has."


def clicked() -> str | None:
    """The run whose button was pressed; None where a button has only just appeared."""
    if not ctx.triggered_id or not ctx.triggered[0]["value"]:
        return None
    return str(ctx.triggered_id["name"])
