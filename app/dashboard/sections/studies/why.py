"""Why a block is hurt: the card on its page."""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import html
from pydantic import ValidationError

from awqscope.app.dashboard.jobs.moved import ModelLocation
from awqscope.app.dashboard.jobs.studies import StudyState
from awqscope.app.dashboard.parts import as_table, chart, go_to, notice, table
from awqscope.app.dashboard.sections.studies.asking import study_card
from awqscope.app.dashboard.urls import Page, link
from awqscope.app.figures.studies.causes import (
    draw_attention,
    draw_columns,
    draw_growth,
    draw_heads,
    draw_shares,
)
from awqscope.app.store import Store
from awqscope.app.words.numbers import show_token
from awqscope.app.words.studies.why import (
    KIND_NAMES,
    ROLE_NAMES,
    list_carriers,
    name_point,
    name_served,
    order_linears,
    split_cells,
    to_decibels,
    write_asked,
    write_attention,
    write_carriers,
    write_findings,
    write_growth,
    write_lacking,
    write_part,
    write_percent,
    write_power,
    write_steps,
    write_windows,
)
from awqscope.diagnose.studies.causes.answer import Causes, LinearCauses
from awqscope.mixedprec.words import (
    NOTHING,
    Written,
    write_bounded,
    write_decibels,
    write_number,
    write_share,
    write_times,
)

SUMMARY = (
    "Each linear of the block is quantized alone in the otherwise 16-bit model, and what is odd "
    "about it too. The error of each output is split exactly into what rounding, AWQ's scales and "
    "clipping do to it."
)
LINEAR_COLUMNS = {
    "linear": "Linear",
    "kl": "KL alone",
    "share": "Of the block's KL",
    "total": "Error of its output",
    "rounding": "Rounding",
    "scale": "Scales",
    "clip": "Clip",
    "calibrated": "Error on calibration",
    "alone": "Clip alone",
}
HEAD_COLUMNS = {
    "role": "",
    "head": "Head",
    "error": "Of the linear's error",
    "rounding": "Rounding",
    "scale": "Scales",
    "clip": "Clip",
    "arrived": "Of the block's error",
    "condition": "Condition number",
    "usual": "In other blocks",
}
CHANNEL_COLUMNS = {
    "channel": "Channel",
    "error": "Of the error",
    "activation": "Mean |x|",
    "calibrated": "On calibration",
    "largest": "Largest |x|",
    "weight": "Mean |w|",
    "scale": "Scale",
    "clipped": "Clipped",
}


def why_card(state: StudyState, _store: Store, page: Page, location: ModelLocation | None) -> Any:
    """The card of a block's causes."""
    fields = [
        dmc.TextInput(
            name="windows",
            label="Windows",
            description="Of the run's text; some 2,000 tokens, at least 4 windows, unless given.",
            inputProps={"inputMode": "numeric"},
        )
    ]
    return study_card(
        state,
        "Why",
        SUMMARY,
        lambda answer: draw_answer(answer, page.run),
        button="Find out why",
        fields=fields,
        location=location,
    )


def draw_answer(answer: Mapping[str, Any], run: str) -> Sequence[Any]:
    """The findings, and what they rest on."""
    try:
        causes = Causes.model_validate(answer)
    except ValidationError:
        said = html.P("Another version of awqscope wrote it: measure again.")
        return [notice("This answer cannot be shown", said)]
    cost = f"KL {write_bounded(causes.kl[0], causes.kl[1:])} nats a token"
    parts: list[Any] = [
        html.Div([html.P(said) for said in write_findings(causes)], className="verdict"),
        html.P(f"The block costs {cost} on {write_asked(causes)}. {write_steps(causes)}"),
        html.P(write_windows(causes)) if write_windows(causes) else None,
        *(html.P(said, className="note") for said in write_lacking(causes)),
        html.H3("Which linear"),
        chart(draw_shares(causes.linears), "Share of the block's KL by linear, see the table"),
        table(LINEAR_COLUMNS, [linear_row(linear) for linear in order_linears(causes)]),
        html.H3("Where the error begins and how it grows"),
        html.P(write_growth(causes)),
        chart(draw_growth(causes.growth), "Relative error along the block, see the table"),
        growth_table(causes),
    ]
    if any(linear.heads for linear in causes.linears):
        parts += [
            html.H3("By head"),
            chart(draw_heads(causes), "Share of the block's error by head, see the table"),
            as_table(HEAD_COLUMNS, head_rows(causes)),
        ]
    if causes.attention:
        parts += [
            html.H3("What the heads attend to"),
            html.P(write_attention(causes)),
            chart(draw_attention(causes.attention), "Entropy of attention by head, see the table"),
            attention_table(causes),
        ]
    parts += channel_parts(causes)
    if list_carriers(causes):
        parts += [
            html.H3("Massive activations"),
            html.P(write_carriers(causes)),
            carriers_table(causes, run),
        ]
    return parts


def linear_row(linear: LinearCauses) -> dict[str, str]:
    """A linear: what it costs, and the error of its output by AWQ's steps."""
    nothing = dict.fromkeys(("total", "rounding", "scale", "clip"), NOTHING)
    return {
        "linear": linear.linear,
        "kl": write_bounded(linear.kl[0], linear.kl[1:]),
        "share": write_part(linear.share),
        **(split_cells(linear.split) or nothing),
        "calibrated": split_cells(linear.calibrated).get("total", NOTHING),
        "alone": NOTHING if linear.clip_alone is None else write_share(linear.clip_alone, ".2%"),
    }


def growth_table(causes: Causes) -> Any:
    """The error at every point inside the block."""
    rows = []
    for point in causes.growth:
        value, low, high = point.error
        rows.append(
            {
                "point": name_point(point),
                "error": write_percent(value),
                "interval": Written(f"{write_percent(low)} to {write_percent(high)}", low, high),
                "sqnr": write_decibels(to_decibels(value)),
            }
        )
    columns = {"point": "Point", "error": "Relative error", "interval": "95%", "sqnr": "SQNR"}
    return as_table(columns, rows)


def head_rows(causes: Causes) -> list[dict[str, str]]:
    """Every head of the linears that have any."""
    return [
        {
            "role": ROLE_NAMES[head.role],
            "head": name_served(head, causes),
            "error": write_share(head.error),
            "rounding": write_share(head.rounding, "+.1%"),
            "scale": write_share(head.scale, "+.1%"),
            "clip": write_share(head.clip, "+.1%"),
            "arrived": write_share(head.arrived),
            "condition": write_power(head.condition),
            "usual": write_power(causes.usual[head.role]) if head.role in causes.usual else NOTHING,
        }
        for linear in causes.linears
        for head in linear.heads
    ]


def attention_table(causes: Causes) -> Any:
    """What every head attends to, in both models."""
    columns = {
        "head": "Head",
        "before": "Entropy, 16-bit",
        "after": "Quantized",
        "first": "First token, 16-bit",
        "then": "Quantized",
        "moved": "Moved",
    }
    return as_table(
        columns,
        [
            {
                "head": str(head.head),
                "before": write_number(head.entropy[0], ".3f"),
                "after": write_number(head.entropy[1], ".3f"),
                "first": write_share(head.first[0]),
                "then": write_share(head.first[1]),
                "moved": write_share(head.moved, ".2%"),
            }
            for head in causes.attention
        ],
        # Two columns have one heading on the page, beside what each is of.
        {
            "after": {"after": "Entropy, quantized"},
            "then": {"then": "First token, quantized"},
        },
    )


def channel_parts(causes: Causes) -> list[Any]:
    """The input channels of every linear: those of the dearest at once, the others folded."""
    known = [linear for linear in order_linears(causes) if linear.channels]
    parts: list[Any] = [html.H3("By input channel")] if known else []
    for number, linear in enumerate(known):
        drawn = [
            chart(draw_columns(linear), f"Input channels of {linear.linear}, see the table"),
            # A table is known by its caption to those who go from one to the next.
            table(
                CHANNEL_COLUMNS,
                channel_rows(linear),
                f"Input channels of {linear.linear}",
                folded="The same as a table",
            ),
        ]
        if number:
            parts.append(html.Details([html.Summary(linear.linear), *drawn]))
        else:
            parts += [html.P(f"Into {linear.linear}, which costs most."), *drawn]
    return parts


def channel_rows(linear: LinearCauses) -> list[dict[str, str]]:
    """The channels that hold most of a linear's error."""
    return [
        {
            "channel": str(channel.channel),
            "error": write_share(channel.error, ".2%"),
            "activation": write_number(channel.activation, ".3g"),
            "calibrated": write_number(channel.calibrated, ".3g"),
            "largest": write_number(channel.largest, ".3g"),
            "weight": write_number(channel.weight, ".3g"),
            "scale": write_number(channel.scale, ".3g"),
            "clipped": write_share(channel.clipped),
        }
        for channel in linear.channels
    ]


def carriers_table(causes: Causes, run: str) -> Any:
    """The tokens that carry massive activations, each with the way to where it is."""
    columns = {
        "token": "Token",
        "into": "Into",
        "what": "What",
        "channel": "Channel",
        "size": "|x|",
        "times": "Of the median token's",
        "where": "",
    }
    return table(
        columns,
        [
            {
                "token": html.Code(show_token(carrier.text), className="token"),
                "into": linear.linear,
                "what": KIND_NAMES[carrier.kind],
                "channel": str(carrier.channel),
                "size": write_number(carrier.size, ".3g"),
                "times": write_times(carrier.times, ".0f"),
                "where": go_to(
                    f"window {carrier.window}, token {carrier.position}",
                    link("tokens", run, window=carrier.window, position=carrier.position),
                ),
            }
            for linear, carrier in list_carriers(causes)
        ],
    )
