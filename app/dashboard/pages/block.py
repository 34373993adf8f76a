"""One block: why it spikes. Its activations, its units, its weights, and the tokens it spoils."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html

from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.pages.run import run_heading, unit_link
from awqscope.app.dashboard.parts import (
    as_table,
    card,
    chart,
    fell_back,
    go_to,
    heading,
    notice,
    switch,
    table,
    tile,
    tiles,
)
from awqscope.app.dashboard.sections.studies.cards import study_cards
from awqscope.app.dashboard.urls import Page, link
from awqscope.app.figures.activations import draw_channels, draw_histograms
from awqscope.app.figures.blocks import draw_depth
from awqscope.app.store import RunSummary, Store
from awqscope.app.words.compared.comparison import NO_UNITS, label_models, name_model
from awqscope.app.words.numbers import show_token
from awqscope.app.words.run import (
    WIDTH_COLUMNS,
    block_unit_columns,
    block_unit_rows,
    channel_summary,
    promotion_columns,
    promotion_rows,
    width_rows,
    worst_units,
)
from awqscope.app.words.sites import OUTPUT, choose_site, name_site, order_kinds
from awqscope.app.words.studies.weights import WORST_APART, worst_cells
from awqscope.diagnose.runs.record import UNIFORM, AnyRecord, Record
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.words import (
    write_decibels,
    write_interval,
    write_number,
    write_times,
)

MODELS = ("reference", UNIFORM)
STATISTICS = {
    "abs_max": "largest |x|",
    "rms": "root mean square",
    "mean": "mean",
    "kurtosis": "kurtosis (3 is normal)",
    "q0.001": "0.1% quantile",
    "q0.5": "median",
    "q0.999": "99.9% quantile",
    "channel_median": "median channel's largest |x|",
}

Row = Mapping[str, Any]


def block_tiles(views: Mapping[str, Row], outputs: Sequence[Row], block: int) -> html.Dl:
    """What the block costs, seen from each side."""
    alone, without = views["isolated"], views["restored"]
    output = next((row for row in outputs if row["block"] == block), None)
    return tiles(
        tile(
            "KL alone",
            write_number(alone["kl"]),
            write_interval((alone["kl_low"], alone["kl_high"])),
        ),
        tile(
            "ΔPPL alone",
            write_number(alone["delta_ppl"], "+.3f"),
            write_interval((alone["delta_ppl_low"], alone["delta_ppl_high"]), "+.3f"),
        ),
        tile("KL if restored", write_number(without["kl"]), "all others quantized"),
        tile("z among the blocks", write_number(alone["z"], ".1f"), "of log KL, robust"),
        tile(
            "Output SQNR",
            write_decibels(output["sqnr"] if output else None),
            "" if output is None else f"cosine {write_number(output['cosine'], '.5f')}",
        ),
    )


def activation_cards(
    store: Store, run: str, record: AnyRecord, block: int, site: str, rows: Sequence[Row]
) -> Any:
    """Histogram, channels and statistics of one site in both models. rows: the site's two."""
    by_model = {row["model"]: row for row in rows}
    labels = {model: label_models(record)[model] for model in MODELS}
    edges = store.array(run, "histogram_edges")
    kinds = ("histogram", "channel_max")
    arrays = {
        kind: {
            model: found
            for model in MODELS
            if (found := store.array(run, f"{kind}.{block}.{site}.{model}")) is not None
        }
        for kind in kinds
    }
    reference = by_model["reference"]
    parts: list[Any] = []
    if edges is not None and arrays["histogram"]:
        parts.append(
            card(
                f"Activations, 16-bit against {labels[UNIFORM]}",
                chart(
                    draw_histograms(edges, arrays["histogram"], labels),
                    "Histogram of activations, see the table",
                ),
                as_table({"what": "", **labels}, statistics_rows(by_model)),
                summary=spread_summary(by_model),
            )
        )
    if "reference" in arrays["channel_max"]:
        outliers = reference["outlier_channels"]
        parts.append(
            card(
                "Outlier channels",
                chart(
                    draw_channels(arrays["channel_max"], reference["channel_median"], outliers),
                    "Largest activation by channel, see the table",
                ),
                as_table(
                    {"channel": "Channel", "value": "Largest |x|", "times": "Of the median"},
                    [
                        {
                            "channel": str(channel),
                            "value": write_number(value),
                            "times": write_times(value / max(reference["channel_median"], 1e-12)),
                        }
                        for channel, value in zip(
                            outliers, reference["outlier_values"], strict=True
                        )
                    ],
                ),
                summary=channel_summary(reference),
            )
        )
    return html.Div(parts, className="columns")


def spread_summary(by_model: Mapping[str, Row]) -> str:
    """The histogram in words."""
    reference, uniform = by_model["reference"], by_model.get("uniform")
    said = (
        f"Values reach {write_number(reference['abs_max'])} at a root mean square of "
        f"{write_number(reference['rms'])} (kurtosis {write_number(reference['kurtosis'], '.1f')})."
    )
    if uniform is not None and uniform["sqnr"] is not None:
        said += (
            " Quantized, with all blocks before it: "
            f"SQNR {write_decibels(uniform['sqnr'])}, "
            f"cosine {write_number(uniform['cosine'], '.5f')}."
        )
    elif uniform is not None:
        said += " The candidate's are scaled inside of this block: they have no error of their own."
    return said


def statistics_rows(by_model: Mapping[str, Row]) -> list[dict[str, Any]]:
    """Both models' statistics side by side."""
    return [
        {"what": text, **{model: write_number(row[key]) for model, row in by_model.items()}}
        for key, text in STATISTICS.items()
    ]


def units_section(rows: Sequence[Row], promotions: Sequence[Row], spec: RunSpec, run: str) -> Any:
    """The block's units at both widths, each a link to its activations, and the sets of them tried
    at the rescue width."""
    low, rescue = spec.bits, spec.rescue_bits
    lines = block_unit_rows(rows, spec)
    kept = sorted({row["unit"] for row in rows} & set(spec.keep_fp16))
    if not lines:
        return card("Units", summary="All of them are kept at 16 bits.")
    linked = [
        line | {"unit": unit_link(run, line["unit"]), "inside": weights_link(run, line["unit"])}
        for line in lines
    ]
    columns = block_unit_columns(low, rescue) | {"inside": "Look inside"}
    parts: list[Any] = [table(columns, linked, "The block's units, worst first")]
    if promotions:
        parts += [
            html.H3("What was tried"),
            table(
                promotion_columns(rescue),
                promotion_rows(promotions),
                "Promotions measured in the quantized model, best first",
            ),
        ]
    return card(
        "Units",
        *parts,
        summary=f"{lines[0]['unit']} costs most: KL {lines[0]['low']} at {low} bits."
        + (f" Kept at 16 bits: {', '.join(kept)}." if kept else ""),
    )


def weights_link(run: str, unit: str) -> Any:
    """The way to what is stored of a unit's weights."""
    block, _, kind = unit.partition(".")
    return go_to(f"weights of {unit}", link("weights", run, int(block), unit=kind))


def widths_section(rows: Sequence[Row]) -> Any:
    """The widths that a candidate's units were found at."""
    return card(
        "Units",
        table(WIDTH_COLUMNS, width_rows(rows)),
        summary=NO_UNITS,
    )


def weights_card(rows: Sequence[Row], run: str) -> Any:
    """Which weight groups of the block the rounding hurts most. rows: of weights.parquet."""
    ordered = sorted(rows, key=lambda row: -row["relative_error"])
    lines = [
        {
            "linear": go_to(
                row["linear"], link("weights", run, row["block"], linear=row["linear"])
            ),
            "error": write_number(row["relative_error"], ".2%"),
            **worst_cells(row),
        }
        for row in ordered
    ]
    return card(
        "Weight error",
        table(
            {"linear": "Linear", "error": "‖ΔW‖ / ‖W‖", "groups": "Worst weight groups"},
            lines,
            apart=WORST_APART,
        ),
        summary=f"{ordered[0]['linear']} is rounded worst: {lines[0]['error']} of its norm. "
        "A group's error is relative to its own norm, or to that of the linear's typical group "
        "where its own is smaller. "
        "Weight error alone ranks units badly; it says where to look inside one.",
    )


def tokens_card(rows: Sequence[Row], run: str, block: int) -> Any:
    """The tokens whose KL this block causes."""
    return card(
        "Tokens this block spoils",
        table(
            {"text": "Token", "alone": "KL, this block alone", "kl": "KL, all", "where": ""},
            [
                {
                    "text": html.Code(show_token(row["text"]), className="token"),
                    "alone": write_number(row["block_kl"], ".4f"),
                    "kl": write_number(row["kl"], ".4f"),
                    "where": go_to(
                        f"window {row['window']}, token {row['position']}",
                        link("tokens", run, window=row["window"], position=row["position"]),
                    ),
                }
                for row in rows
            ],
        ),
        summary="Of the worst windows that blocks were measured on, the tokens whose prediction "
        f"moves most when block {block} alone is quantized.",
    )


def block_heading(run: RunSummary, block: int, blocks: int) -> Any:
    """The head of the page, with the ways to the neighbours."""
    around = [
        go_to(text, link("block", run.name, number))
        for number, text in (
            (block - 1, f"← Block {block - 1}"),
            (block + 1, f"Block {block + 1} →"),
        )
        if 0 <= number < blocks
    ]
    return html.Div(
        [
            run_heading(run, "block", f"Block {block}"),
            html.Nav(around, className="around", **{"aria-label": "Other blocks"}),
        ]
    )


def layout(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The block page."""
    run = store.summary(page.run)
    if run.record is None:
        return [heading(run.name), notice("This run cannot be shown", html.P(run.error))]
    blocks = run.record.source.blocks
    rows = store.table(run.name, "blocks")
    views = {row["view"]: row for row in rows if row["block"] == page.block}
    if page.block >= blocks or not views:
        said = (
            f"This model has blocks 0 to {blocks - 1}."
            if page.block >= blocks
            else "The sweep has not measured it yet."
        )
        return [run_heading(run, "block"), notice(f"No block {page.block} here", html.P(said))]
    activations = store.table(run.name, "activations")
    outputs = [r for r in activations if r["site"] == OUTPUT and r["model"] == UNIFORM]
    parts: list[Any] = [block_heading(run, page.block, blocks)]
    if views["isolated"]["flagged"]:
        reason = html.P(views["isolated"]["reason"])
        parts.append(notice("▲ This block is flagged", reason, tone="spike"))
    parts.append(block_tiles(views, outputs, page.block))
    units = [row for row in store.table(run.name, "units") if row["block"] == page.block]
    promotions = [row for row in store.table(run.name, "promotions") if row["block"] == page.block]
    worst: Sequence[Row] = []
    if units and isinstance(run.record, Record):
        worst = worst_units(units, run.record.spec)
        parts.append(units_section(units, promotions, run.record.spec, run.name))
    elif units:
        parts.append(widths_section(units))
    parts += study_cards(store, page, jobs)
    here = [row for row in activations if row["block"] == page.block]
    if here:
        sites = order_kinds(run.record, [row["site"] for row in here])
        asked = page.option("site")
        site = asked if asked in sites else choose_site(sites, worst, here)
        names = {name: name_site(name) for name in sites}
        if asked not in ("", site):
            parts.append(
                fell_back(f"There are no activations {name_site(asked)} here", names[site])
            )
        parts += [
            html.Div(
                [
                    html.Span("Look at the activations ", className="note"),
                    switch("site", "Site", names, site),
                ],
                className="site",
            ),
            html.Div(
                activation_cards(
                    store,
                    run.name,
                    run.record,
                    page.block,
                    site,
                    [row for row in here if row["site"] == site],
                ),
                id="site-cards",
            ),
        ]
    if outputs:
        parts.append(
            card(
                "Along the depth",
                chart(draw_depth(outputs, page.block), "SQNR by block, see the table"),
                as_table(
                    {"block": "Block", "sqnr": "SQNR, dB", "cosine": "Cosine", "mse": "Rel. MSE"},
                    [
                        {
                            "block": str(row["block"]),
                            "sqnr": write_number(row["sqnr"], ".2f"),
                            "cosine": write_number(row["cosine"], ".6f"),
                            "mse": write_number(row["relative_mse"]),
                        }
                        for row in outputs
                    ],
                ),
                summary="How much of each block's output survives in "
                f"{name_model(UNIFORM, run.record)}.",
            )
        )
    weights = [row for row in store.table(run.name, "weights") if row["block"] == page.block]
    if weights:
        parts.append(weights_card(weights, run.name))
    spoiled = store.block_tokens(run.name, page.block)
    if spoiled:
        parts.append(tokens_card(spoiled, run.name, page.block))
    return parts
