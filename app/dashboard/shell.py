"""The dashboard's first page, before and around every other: what a browser is sent at once, what
the page is called, and whether there is one at an address at all."""

import html as markup
import re
from typing import Any

import dash_mantine_components as dmc
import flask
from dash import Dash, dcc, html

from awqscope.app.dashboard.jobs.starts import find_pending
from awqscope.app.dashboard.packed import CHARTS
from awqscope.app.dashboard.urls import Page, link, list_defaults, read_address
from awqscope.app.store import Store, UnknownRunError
from awqscope.mixedprec.errors import InputError

NAME = "awqscope"
NO_PAGE, NO_RUN = "No such page", "No such run"
# Milliseconds between looks at a run that is under way, and at a list where none is.
REFRESH, GLANCE = 2000, 5000
# Dash's own, with the language of the pages, and with what stands there until the page does.
INDEX = """<!DOCTYPE html>
<html lang="en">
<head>{metas}<title>{title}</title>{favicon}{css}{early}</head>
<body><div id="react-entry-point">
<div class="top"><span class="brand"><span class="mark-a">awq</span>scope</span></div>
<main>{skeleton}</main></div><footer>{config}{scripts}{renderer}</footer></body>
</html>
"""
ICON = '<link rel="icon" type="image/svg+xml" href="/assets/icon.svg">'
# Mantine's own is a warm grey; from text to ground.
DARK = ["#e7eaef", "#c5ccd6", "#9ca6b5", "#8c96a5", "#3a4350"]
DARK += ["#2b323d", "#1a2028", "#12161c", "#0d1116", "#090c10"]
BARS = 7
SKELETON = f'<div class="skeleton" role="status" aria-label="Loading">{"<i></i>" * BARS}</div>'
# What a page asks for last, because it is drawn last: the largest scripts there are.
SUITES = "/_dash-component-suites"
GRID = f"{SUITES}/dash_ag_grid/async-community.js"
# Dash sends its own table to every page; none of these shows one.
NEVER_USED = re.compile(r'<script src="[^"]*/dash/dash_table/[^"]*"></script>')
TITLES = {
    "runs": "Runs",
    "tokens": "Tokens",
    "recipe": "Recipe",
    "explain": "Explain",
    "compare": "Compare",
    "trend": "Trend",
    "new": "New run",
}


class Dashboard(Dash):
    """Dash with a first page of its own, which asks early for what its address will need."""

    store: Store
    read_only: bool

    def interpolate_index(self, **parts: Any) -> str:
        """The HTML that a browser is sent first, from Dash's parts of it."""
        search = flask.request.query_string.decode(errors="replace")
        page = read_address(flask.request.path, search)
        early = [
            f'<link rel="preload" href="{path}" as="script">'
            for path in list_early(self.store, page)
        ]
        title = write_title(self.store, page, self.read_only)
        return INDEX.format(
            metas=parts["metas"],
            # A name on disk need be no text.
            title=markup.escape(title.encode(errors="replace").decode()),
            favicon=ICON,
            css=parts["css"],
            early="".join(early),
            skeleton=SKELETON,
            config=parts["config"],
            scripts=NEVER_USED.sub("", parts["scripts"]),
            renderer=parts["renderer"],
        )


def list_early(store: Store, page: Page) -> list[str]:
    """The scripts that the first screen of a page is sure to ask for; a browser complains of what
    it has fetched in vain."""
    if page.name == "runs":
        return [GRID] if store.list_runs() else []
    if page.name not in ("run", "recipe"):
        return []
    try:
        record = store.summary(page.run).record
        if record is None or record.headline is None:
            return []
        if page.name == "recipe":
            return [CHARTS] if store.recipe(page.run) else []
    except (UnknownRunError, InputError):
        return []
    return [CHARTS]


def is_found(store: Store, page: Page, read_only: bool) -> bool:
    """Whether there is anything at an address: its page, its run, its block."""
    if page.name == "missing" or (page.name == "new" and read_only):
        return False
    if not page.run:
        return True
    try:
        record = store.summary(page.run).record
    except UnknownRunError:
        # A run that was just started has no record yet.
        return find_pending(store.root, page.run) is not None
    of_block = page.name in ("block", "weights")
    return not of_block or record is None or page.block < record.source.blocks


def write_title(store: Store, page: Page, read_only: bool) -> str:
    """What the page at an address is called: "Block 5 · my-model · awqscope"."""
    return " · ".join([*_list_titles(store, page, read_only), NAME])


def _list_titles(store: Store, page: Page, read_only: bool) -> list[str]:
    """The page's own name, then what it belongs to."""
    if not is_found(store, page, read_only):
        gone = page.run and all(found.name != page.run for found in store.list_runs())
        return [NO_RUN] if gone else [NO_PAGE]
    if page.name in ("run", "block"):
        return [f"Block {page.block}"] * (page.name == "block") + [page.run]
    if page.name == "weights":
        return [f"Weights of block {page.block}", page.run]
    told = ("a", "b") if page.name == "compare" else ("model",) if page.name == "trend" else ()
    names = [name for name in map(page.option, told) if name]
    several = [] if names or page.name not in ("compare", "trend") else page.names("runs")
    own = [" and ".join(names)] if names else [f"{len(several)} runs"] * bool(several)
    return [*own, TITLES[page.name], *([page.run] if page.run else [])]


def shell(read_only: bool) -> Any:
    """What surrounds every page."""
    ways = [("Runs", link("runs")), ("Compare", link("compare"))]
    if not read_only:
        ways.append(("New run", link("new")))
    return dmc.MantineProvider(
        [
            dcc.Location(id="url", refresh="callback-nav"),
            dcc.Interval(id="live", interval=REFRESH, disabled=True),
            dcc.Interval(id="glance", interval=GLANCE),
            dcc.Store(id="address"),
            dcc.Store(id="seen"),
            dcc.Store(id="here"),
            dcc.Store(id="kept"),
            dcc.Store(id="defaults", data=list_defaults()),
            html.A("Skip to the page", href="#page", className="skip"),
            html.Header(
                [
                    dcc.Link(
                        [html.Span("awq", className="mark-a"), html.Span("scope")],
                        href=link("runs"),
                        className="brand",
                    ),
                    html.Nav(
                        [dcc.Link(text, href=href) for text, href in ways],
                        **{"aria-label": "Pages"},
                    ),
                    dmc.ColorSchemeToggle(
                        lightIcon="☀",
                        darkIcon="☾",
                        variant="subtle",
                        color="gray",
                        **{"aria-label": "Light or dark"},
                    ),
                ],
                className="top",
            ),
            html.Main(skeleton(), id="page", tabIndex=-1),
            html.Div(id="hints"),
        ],
        defaultColorScheme="auto",
        theme={
            "primaryColor": "blue",
            "primaryShade": 8,
            "defaultRadius": "md",
            "respectReducedMotion": True,
            "colors": {"dark": DARK},
        },
    )


def skeleton() -> html.Div:
    """What stands where a page will be."""
    return html.Div(
        [html.I() for _ in range(BARS)],
        className="skeleton",
        role="status",
        **{"aria-label": "Loading"},
    )
