"""The dashboard's server: from an address to its page, and who may see it."""

import logging
import socket
import zlib
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import flask
from dash import Dash, Input, Output, html

from awqscope.app.dashboard import callbacks
from awqscope.app.dashboard.access import Access, is_admitted, is_own_request, is_trusted
from awqscope.app.dashboard.components import Title
from awqscope.app.dashboard.hints import add_hints
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.jobs.starts import ENDED, find_pending
from awqscope.app.dashboard.packed import pack_answer, send_charts
from awqscope.app.dashboard.pages import (
    block,
    explain,
    new,
    recipe,
    run,
    runs,
    tokens,
    weights,
)
from awqscope.app.dashboard.pages.compared import many_runs, trend
from awqscope.app.dashboard.parts import fell_back, go_to, heading, notice
from awqscope.app.dashboard.sections import model_location, notes, starting
from awqscope.app.dashboard.sections.gate import trying
from awqscope.app.dashboard.sections.listed.rows import list_rows, may_change, stamp_rows
from awqscope.app.dashboard.sections.studies import asking
from awqscope.app.dashboard.shell import (
    NAME,
    NO_PAGE,
    NO_RUN,
    Dashboard,
    is_found,
    shell,
    write_title,
)
from awqscope.app.dashboard.urls import Page, link, read_address
from awqscope.app.store import Store, UnknownRunError
from awqscope.diagnose.runs.directory import CONTRADICTIONS
from awqscope.mixedprec.errors import InputError

# Where Dash answers with the first page: the root, and all that is nothing else.
PAGE_RULES = ("/", "/<path:path>")
COOKIE = "awqscope-token"
HARMLESS = ("GET", "HEAD", "OPTIONS")
DAYS_30 = 30 * 24 * 3600
LAYOUTS = {
    "runs": runs.layout,
    "run": run.layout,
    "block": block.layout,
    "weights": weights.layout,
    "tokens": tokens.layout,
    "recipe": recipe.layout,
    "explain": explain.layout,
    "compare": many_runs.layout,
    "trend": trend.layout,
    "new": new.layout,
}
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


def create_app(store: Store, access: Access) -> Dashboard:
    """The dashboard over the runs of `store`."""
    app = Dashboard(
        "awqscope",
        assets_folder=str(callbacks.ASSETS),
        title=NAME,
        update_title="",
        suppress_callback_exceptions=True,
        serve_locally=True,
        add_log_handler=False,
    )
    app.store, app.read_only = store, access.read_only
    jobs = None if access.read_only else Jobs(store)
    app.layout = lambda: shell(access.read_only)

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
    many_runs.register(app, store)
    trend.register(app, store)
    callbacks.register_live(app, store, jobs, show, partial(stamp, store))
    if jobs is not None:
        new.register(app, jobs)
        starting.register(app, store, jobs)
        runs.register(app, store, jobs)
        model_location.register(app, store)
        notes.register(app, store)
    explain.register(app, store, jobs)
    asking.register(app, store, jobs)
    trying.register(app, store, jobs)
    guard(app, access)
    # After the doorkeeper: nothing is sent past it.
    app.server.before_request(send_charts)
    app.server.after_request(pack_answer)
    return app


def render(store: Store, page: Page, jobs: Jobs | None) -> Any:
    """The page at an address with its title, or a page that says why it cannot be shown. What the
    address asked for in vain is said first."""
    parts = render_parts(store, page, jobs)
    title = Title(write_title(store, page, jobs is None))
    return [title, *write_refused(store, page), *add_hints(parts)]


def render_parts(store: Store, page: Page, jobs: Jobs | None) -> list[Any]:
    """What there is to see at an address."""
    if page.name == "missing" or (page.name == "new" and jobs is None):
        return [heading(NO_PAGE), html.P(go_to("All runs", link("runs")))]
    try:
        return LAYOUTS[page.name](store, page, jobs)
    except UnknownRunError as error:
        pending = find_pending(store.root, page.run)
        if pending is not None:
            return starting.layout(pending, jobs)
        said = html.P(["There is no run ", html.Code(str(error)), f" in {store.root}."])
        return [heading(NO_RUN), said, html.P(go_to("All runs", link("runs")))]
    except (InputError, OSError, *CONTRADICTIONS) as error:
        # A file of the run is damaged: only this page cannot be shown.
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


def write_refused(store: Store, page: Page) -> list[Any]:
    """A line for every option of the address that the page does not take."""
    said = [
        fell_back(f"There is no {key} “{value}”", page.option(key) or "the default")
        for key, value in page.refused.items()
    ]
    like = page.option("like") if page.name == "new" else ""
    if like and all(found.name != like for found in store.list_runs()):
        said.append(fell_back(f"There is no run “{like}” to take it from", "an empty form"))
    return said


def is_live(store: Store, page: Page) -> bool:
    """Whether what the page shows may change by itself."""
    if page.name == "runs":
        return may_change(list_rows(store))
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
        return stamp_rows(list_rows(store))
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


def guard(app: Dashboard, access: Access) -> None:
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
    def tell_missing(answer: flask.Response) -> flask.Response:
        # Every address gets the same first page; one that leads nowhere says so to those too who
        # run no script.
        rule = flask.request.url_rule
        if answer.status_code == 200 and rule is not None and rule.rule in PAGE_RULES:
            page = read_address(flask.request.path, "")
            if not is_found(app.store, page, access.read_only):
                answer.status_code = 404
        return answer

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

    # That a request waits for another is no news: a page asks for ten things at once.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    return waitress.create_server(app.server, sockets=[bound], threads=6, ident=None)
