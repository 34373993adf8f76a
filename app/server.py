"""The dashboard's server: from an address to its page, and who may see it."""

import logging
import re
import socket
import zlib
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import dash_mantine_components as dmc
import flask
from dash import Dash, Input, Output, dcc, html

from app import callbacks
from app.access import Access, is_admitted, is_own_request, is_trusted
from app.jobs import Jobs
from app.pages import (
    block,
    compare,
    explain,
    model_place,
    new,
    recipe,
    run,
    runs,
    starting,
    tokens,
)
from app.parts import go_to, heading, notice
from app.starts import ENDED, find_pending
from app.store import Store, UnknownRunError
from app.urls import Page, link, read_address
from diagnose.rundir import CONTRADICTIONS
from mixedprec.errors import InputError

COOKIE = "awqscope-token"
HARMLESS = ("GET", "HEAD", "OPTIONS")
DAYS_30 = 30 * 24 * 3600
# Milliseconds between looks at a run that goes on, and at a list where none does.
REFRESH, GLANCE = 2000, 5000
LAYOUTS = {
    "runs": runs.layout,
    "run": run.layout,
    "block": block.layout,
    "tokens": tokens.layout,
    "recipe": recipe.layout,
    "explain": explain.layout,
    "compare": compare.layout,
    "new": new.layout,
}
# Dash's own, with the language of the pages.
INDEX = """<!DOCTYPE html>
<html lang="en">
<head>{metas}<title>{title}</title>{favicon}{css}{early}</head>
<body>{app_entry}<footer>{config}{scripts}{renderer}</footer></body>
</html>
"""
# What a page asks for last, because it is drawn last: the largest scripts there are.
SUITES = "/_dash-component-suites"
PLOTLY = f"{SUITES}/plotly/package_data/plotly.min.js"
GRID = f"{SUITES}/dash_ag_grid/async-community.js"
# Dash sends its own table to every page; none of these shows one.
NEVER_USED = re.compile(r'<script src="[^"]*/dash/dash_table/[^"]*"></script>')
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
# plotly and Mantine set styles on elements, and draw images into data and blob addresses.
POLICY = (
    "default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)

log = logging.getLogger("awqscope")


class Dashboard(Dash):
    """Dash with a first page of its own, which asks early for what its address will need."""

    store: Store

    def interpolate_index(self, **parts: Any) -> str:
        """The HTML that a browser is sent first, from Dash's parts of it."""
        wanted = list_early(self.store, read_address(flask.request.path, ""))
        early = "".join(f'<link rel="preload" href="{path}" as="script">' for path in wanted)
        return INDEX.format(
            **parts | {"scripts": NEVER_USED.sub("", parts["scripts"])}, early=early
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
        if record is None or "kl" not in record["headline"]:
            return []
        if page.name == "recipe":
            return [PLOTLY, GRID] if store.recipe(page.run) else []
    except (UnknownRunError, InputError):
        return []
    return [PLOTLY]


def create_app(store: Store, access: Access) -> Dash:
    """The dashboard over the runs of `store`."""
    app = Dashboard(
        "awqscope",
        assets_folder=str(callbacks.ASSETS),
        title="awqscope",
        update_title="",
        suppress_callback_exceptions=True,
        serve_locally=True,
        add_log_handler=False,
    )
    app.store = store
    jobs = None if access.read_only else Jobs(store)
    app.layout = lambda: shell(access)

    def show(page: Page) -> Any:
        # Before the page is rendered: what changes meanwhile is then seen at the next tick.
        live, seen = is_live(store, page), stamp(store, page)
        return render(store, page, jobs), not live, seen

    @app.callback(
        Output("page", "children"),
        Output("live", "disabled"),
        Output("seen", "data"),
        Input("address", "data"),
        prevent_initial_call=True,
    )
    def show_page(address: dict[str, str] | None) -> Any:
        address = address or {}
        return show(read_address(address.get("path"), address.get("search")))

    callbacks.register(app, store, jobs)
    callbacks.register_live(app, store, jobs, show, partial(stamp, store))
    if jobs is not None:
        new.register(app, jobs)
        starting.register(app, store, jobs)
        runs.register(app, store, jobs)
        recipe.register(app, store, jobs)
        model_place.register(app, store)
    explain.register(app, store, jobs)
    guard(app, access)
    return app


def shell(access: Access) -> Any:
    """What surrounds every page."""
    places = [("Runs", link("runs")), ("Compare", link("compare"))]
    if not access.read_only:
        places.append(("New run", link("new")))
    return dmc.MantineProvider(
        [
            dcc.Location(id="url", refresh="callback-nav"),
            dcc.Interval(id="live", interval=REFRESH, disabled=True),
            dcc.Interval(id="glance", interval=GLANCE),
            dcc.Store(id="address"),
            dcc.Store(id="seen"),
            dcc.Store(id="here"),
            dcc.Store(id="kept"),
            html.A("Skip to the page", href="#page", className="skip"),
            html.Header(
                [
                    dcc.Link(
                        [html.Span("awq", className="mark-a"), html.Span("scope")],
                        href=link("runs"),
                        className="brand",
                    ),
                    html.Nav(
                        [dcc.Link(text, href=href) for text, href in places],
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
            html.Main(id="page", tabIndex=-1),
        ],
        defaultColorScheme="auto",
        theme={
            "primaryColor": "blue",
            "primaryShade": 8,
            "defaultRadius": "md",
            "respectReducedMotion": True,
        },
    )


def render(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The page at an address, or a page that says why it cannot be shown."""
    if page.name == "missing" or (page.name == "new" and jobs is None):
        return [heading("No such page"), html.P(go_to("All runs", link("runs")))]
    try:
        return LAYOUTS[page.name](store, page, jobs)
    except UnknownRunError as error:
        pending = find_pending(store.root, page.run)
        if pending is not None:
            return starting.layout(pending, jobs)
        said = html.P(["There is no run ", html.Code(str(error)), f" in {store.root}."])
        return [heading("No such run"), said, html.P(go_to("All runs", link("runs")))]
    except (InputError, OSError, *CONTRADICTIONS) as error:
        # A file of the run is damaged: that is this page's trouble and nobody else's.
        log.exception("page %s of %s", page.name, page.run)
        remedy = error.remedy if isinstance(error, InputError) else "run it again elsewhere"
        return [
            heading(page.run or "Trouble", over=go_to("Runs", link("runs"))),
            notice(
                "This page cannot be shown",
                html.P(error.what if isinstance(error, InputError) else f"A file of it: {error!r}"),
                html.P(remedy),
                tone="bad",
            ),
        ]


def is_live(store: Store, page: Page) -> bool:
    """Whether what the page shows may change by itself."""
    if page.name == "runs":
        return runs.is_live(runs.list_rows(store))
    if not page.run or page.name == "missing":
        return False
    pending = find_pending(store.root, page.run)
    if pending is not None:
        return pending.state != ENDED
    try:
        return store.summary(page.run).state == "running"
    except UnknownRunError:
        return False


def stamp(store: Store, page: Page) -> str:
    """What tells one state of a page's run, or of the list, from the next; empty where there is
    none."""
    if page.name == "runs":
        return runs.stamp_rows(runs.list_rows(store))
    if not page.run:
        return ""
    pending = find_pending(store.root, page.run)
    started = "" if pending is None else f"{pending.state} {zlib.crc32(pending.log.encode())} "
    try:
        found = store.summary(page.run)
    except UnknownRunError:
        return started
    changed = (store.find(found.name).path / "run.json").stat().st_mtime_ns
    return f"{started}{found.state} {changed}"


def guard(app: Dash, access: Access) -> None:
    """Put the doorkeeper and the headers before every answer."""
    server = app.server

    @server.before_request
    def check() -> Any:
        if not is_trusted(access, flask.request.headers.get("Host", "")):
            return flask.Response(
                "This is no name of the dashboard: open the address that `awqscope dashboard` "
                "printed.\n",
                400,
                mimetype="text/plain",
            )
        sent = flask.request.headers
        if flask.request.method not in HARMLESS and not is_own_request(
            sent.get("Host", ""), sent.get("Origin"), sent.get("Sec-Fetch-Site")
        ):
            return flask.Response("Another site asked for this.\n", 403, mimetype="text/plain")
        if access.token is None:
            return None
        shown = flask.request.cookies.get(COOKIE)
        if is_admitted(access, shown):
            return None
        if is_admitted(access, flask.request.args.get("token")):
            answer = flask.redirect(without_token(flask.request))
            # Strict would be withheld from the redirect where the link was followed from a site.
            answer.set_cookie(COOKIE, access.token, max_age=DAYS_30, httponly=True, samesite="Lax")
            return answer
        return flask.Response(
            "A token is needed: open the address that `awqscope dashboard` printed.\n",
            403,
            mimetype="text/plain",
        )

    hashes: list[str] = []

    @server.after_request
    def add_headers(answer: flask.Response) -> flask.Response:
        if not hashes:
            hashes.extend(f"'{value.strip(chr(39))}'" for value in app.csp_hashes())
        answer.headers["Content-Security-Policy"] = POLICY.format(hashes=" ".join(hashes))
        for name, value in HEADERS.items():
            answer.headers[name] = value
        return answer


def without_token(request: flask.Request) -> str:
    """The address asked for, but for the token: it does not stay in the browser's history."""
    kept = [pair for pair in request.args.items(multi=True) if pair[0] != "token"]
    path = "/" + quote(request.path.lstrip("/"))
    return f"{path}?{urlencode(kept)}" if kept else path


def open_socket(host: str, port: int) -> socket.socket:
    """A socket bound to `port`, or to a free one for 0. InputError where it cannot be had."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError as error:
        found.close()
        raise InputError(
            f"port {port} on {host} cannot be used ({error.strerror})", "choose another --port"
        ) from error
    return found


def listen(app: Dash, bound: socket.socket) -> Any:
    """A server that takes connections from now on; its run() answers them until interrupted."""
    # pyarrow and plotly look for it when they are first asked, in several threads at once: one of
    # them then finds half of it.
    import pandas  # noqa: F401
    import waitress

    return waitress.create_server(app.server, sockets=[bound], threads=6, ident=None)
