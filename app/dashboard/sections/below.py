"""What a run's page says below its charts: widths that were found, what differs outside the blocks,
what more bytes would buy, and where the numbers are from."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html

from awqscope.app.dashboard.parts import card, command, table
from awqscope.app.dashboard.sections.destinations import destinations_table
from awqscope.app.store import RunSummary, Store
from awqscope.app.words.compared.comparison import ABOUT_PLACES, NO_RECIPE, NO_UNITS
from awqscope.app.words.offers import COLUMNS, list_offers, offer_rows, write_offers
from awqscope.app.words.provenance import list_hashes, provenance_facts
from awqscope.app.words.run import PLACE_COLUMNS, WIDTH_COLUMNS, place_rows, width_rows
from awqscope.diagnose.entries.source import Place
from awqscope.diagnose.runs.record import AnyRecord, Record
from awqscope.mixedprec.recipes.recipe import Recipe


def widths_card(rows: Sequence[Mapping[str, Any]]) -> Any:
    """What a candidate's units are stored at; nothing more can be said of them."""
    return card(
        "Widths that were found",
        html.Details(
            [
                html.Summary("Unit by unit"),
                table(WIDTH_COLUMNS, width_rows(rows)),
            ]
        ),
        summary=f"{NO_UNITS} {NO_RECIPE}",
    )


def places_card(places: Sequence[Place]) -> Any:
    """What a candidate changes outside the blocks."""
    return card(
        "Outside the blocks",
        table(PLACE_COLUMNS, place_rows(places)),
        summary=ABOUT_PLACES,
    )


def provenance_card(record: AnyRecord, recipe: Recipe | None) -> Any:
    """How perplexity was defined, on what, with what, and where the checkpoint of `recipe` goes."""
    goes = None
    if (
        isinstance(record, Record)
        and record.state == "done"
        and record.spec.no_checkpoint is None
        and recipe is not None
    ):
        goes = destinations_table(record, recipe)
    return card(
        "What these numbers are",
        html.Dl(
            [
                part
                for key, value in provenance_facts(record).items()
                for part in (html.Dt(key), html.Dd(value))
            ],
            className="facts",
        ),
        goes,
        html.Details(
            [
                html.Summary("Hashes of the model's files"),
                table(
                    {"file": "File", "hash": "SHA-256"},
                    [
                        {"file": name, "hash": html.Code(value)}
                        for name, value in list_hashes(record).items()
                    ],
                ),
            ]
        ),
    )


def offers_part(store: Store, run: RunSummary) -> list[Any]:
    """What more bytes would buy, where the recipe gives back little."""
    offers = [] if run.record is None else list_offers(run.record, store.find(run.name).path)
    if not offers:
        return []
    # A shell takes the lines as one command; on a narrow screen they scroll.
    rows = [
        row | {"command": command(row["command"].replace(" && ", " &&\n"))}
        for row in offer_rows(offers)
    ]
    shown = table(COLUMNS, rows, "Recipes for more bytes")
    return [card("What more bytes would buy", shown, summary=write_offers(offers))]
