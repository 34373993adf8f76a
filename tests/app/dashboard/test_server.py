"""The dashboard from outside: who gets in, what answers carry, pages that say why not."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from dash import html
from flask.testing import FlaskClient

from awqscope.app.dashboard.access import decide_access
from awqscope.app.dashboard.parts import table
from awqscope.app.dashboard.server import COOKIE, HEADERS, create_app, is_live, stamp
from awqscope.app.dashboard.urls import Page, link
from awqscope.app.store import Store
from awqscope.diagnose.runs.directory import RunDirectory
from tests.help.root import ROOT
from tests.help.runs import SAMPLE, change_record, make_tokens, write_run, write_tokens

ODD = "<img src=x onerror=alert(1)>"
SCRIPT = "<script>alert(1)</script>"
PAGES = ("run", "block", "tokens", "recipe", "explain")
# What shows its text as markup, or fetches or runs something.
LIVELY = {"Markdown", "DangerouslySetInnerHTML", "Iframe", "Script", "Embed", "ObjectEl", "Base"}


def make_client(root: Path, host: str = "127.0.0.1", **changes: Any) -> FlaskClient:
    asked = {"allow_remote": False, "token": None, "names": (), "read_only": False, **changes}
    return create_app(Store(root), decide_access(host, **asked)).server.test_client()


def show(client: FlaskClient, path: str, search: str = "") -> tuple[Any, bool]:
    """What the browser is sent for an address: the page's layout, and whether it is live."""
    outputs = [("page", "children"), ("live", "disabled"), ("seen", "data")]
    answer = client.post(
        "/_dash-update-component",
        json={
            "output": "..page.children...live.disabled...seen.data..",
            "outputs": [{"id": key, "property": name} for key, name in outputs],
            "inputs": [
                {"id": "address", "property": "data", "value": {"path": path, "search": search}}
            ],
            "state": [],
            "changedPropIds": ["address.data"],
        },
    )
    assert answer.status_code == 200, answer.text
    found = json.loads(answer.text, parse_constant=pytest.fail)["response"]
    return found["page"]["children"], not found["live"]["disabled"]


def test_a_form_like_a_run_on_several_texts_takes_them_all(tmp_path: Path) -> None:
    spec = json.loads((SAMPLE / "run.json").read_text(encoding="utf-8"))["spec"]
    write_run(tmp_path, "two", spec={**spec, "valid": ["first.txt", "second.txt"]})
    layout, _ = show(make_client(tmp_path), "/new", "?like=two")
    fields = {
        part["props"]["id"]["field"]: part["props"].get("value")
        for part in walk(layout)
        if isinstance(part["props"].get("id"), dict) and part["props"]["id"]["type"] == "new"
    }
    assert fields["valid"] == "first.txt\nsecond.txt"


def walk(part: Any) -> Iterator[dict[str, Any]]:
    """Every component of a layout."""
    if isinstance(part, dict):
        if "namespace" in part:
            yield part
        for value in part.values():
            yield from walk(value)
    elif isinstance(part, list):
        for value in part:
            yield from walk(value)


def read_text(part: Any) -> str:
    """The text of a layout, as a reader sees it."""
    if isinstance(part, (str, int, float)):
        return str(part)
    if isinstance(part, list):
        return "".join(read_text(value) for value in part)
    if isinstance(part, dict):
        props = part.get("props", part)
        held = [props.get(key) for key in ("children", "text", "columns", "rows", "tokens")]
        # Parts of a sentence.
        return read_text(held) + " " * (part.get("type") not in ("Hint", "Strong"))
    return ""


def find_links(part: Any) -> set[str]:
    """Where a layout's links lead to, those in the cells of tables too."""
    if isinstance(part, list):
        return set().union(*map(find_links, part))
    if not isinstance(part, dict):
        return set()
    own = {part["href"]} if isinstance(part.get("href"), str) else set()
    return own.union(*map(find_links, part.values()))


def find_type(part: Any, kind: str) -> list[dict[str, Any]]:
    return [found["props"] for found in walk(part) if found["type"] == kind]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/run/none", 404),
        ("/none", 404),
        ("/_dash-layout", 200),
        ("/_dash-dependencies", 200),
    ],
)
def test_every_answer_carries_the_headers(tmp_path: Path, path: str, status: int) -> None:
    client = make_client(tmp_path)
    refused = client.get(path, headers={"Host": "evil.example"})
    assert refused.status_code == 400
    answer = client.get(path)
    assert answer.status_code == status
    for found in (answer, refused, make_client(tmp_path, token="t").get(path)):
        for name, value in HEADERS.items():
            assert found.headers[name] == value
        policy = found.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        scripts = re.search("script-src ([^;]*)", policy).group(1)
        assert "unsafe" not in scripts
        assert scripts.startswith("'self' 'sha256-")


def test_nothing_is_fetched_from_elsewhere(tmp_path: Path) -> None:
    page = make_client(tmp_path).get("/").text
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8050", "[::1]:8050", "LOCALHOST:80"])
def test_own_names_are_answered(tmp_path: Path, host: str) -> None:
    assert make_client(tmp_path).get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:8050", "127.0.0.1.nip.io"]
)
@pytest.mark.parametrize("path", ["/", "/_dash-layout", "/assets/awqscope.js"])
def test_other_names_are_refused(tmp_path: Path, host: str, path: str) -> None:
    """A page elsewhere may let its own name point here (DNS rebinding)."""
    assert make_client(tmp_path).get(path, headers={"Host": host}).status_code == 400


def test_token_is_asked_for_everywhere(tmp_path: Path) -> None:
    client = make_client(tmp_path, token="secret")
    for path in ("/", "/_dash-layout", "/_dash-dependencies", "/assets/awqscope.js", "/none"):
        answer = client.get(path)
        assert answer.status_code == 403
        assert "secret" not in answer.text
    assert client.post("/_dash-update-component", json={}).status_code == 403


@pytest.mark.parametrize("token", ["secret", 'a b;c="d",<script>é'])
def test_token_becomes_a_cookie(tmp_path: Path, token: str) -> None:
    client = make_client(tmp_path, token=token)
    answer = client.get("/", query_string={"token": token})
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert client.get_cookie(COOKIE) is not None
    assert client.get("/").status_code == 200


def test_the_rest_of_the_address_survives_the_token(tmp_path: Path) -> None:
    client = make_client(tmp_path, token="t")
    address = link("run", "a b%20c?d#é", metric="delta_ppl")
    answer = client.get(f"{address}&token=t")
    assert answer.headers["Location"] == address
    client = make_client(tmp_path, token="t")
    answer = client.get("/?token=t", environ_overrides={"PATH_INFO": "//evil.example/"})
    assert answer.headers["Location"] == "/evil.example/"


@pytest.mark.parametrize("shown", ["", "wrong", "secret ", "Secret", "sécret"])
def test_other_tokens_are_refused(tmp_path: Path, shown: str) -> None:
    client = make_client(tmp_path, token="secret")
    assert client.get("/", query_string={"token": shown}).status_code == 403
    client.set_cookie(COOKIE, shown)
    assert client.get("/").status_code == 403


def test_pages_of_the_sample(tmp_path: Path) -> None:
    write_run(tmp_path)
    client = make_client(tmp_path)
    for address in (link("runs"), *(link(page, "sample", 5) for page in PAGES)):
        page, live = show(client, address)
        assert len(find_type(page, "H1")) == 1
        assert "cannot be shown" not in read_text(page)
        # The list waits for a verdict of its own accord.
        assert live == (address == link("runs"))
    while live := show(client, link("runs"))[1]:
        time.sleep(0.05)
    assert not live


def test_a_run_says_its_verdict_and_numbers(tmp_path: Path) -> None:
    write_run(tmp_path)
    page, _ = show(make_client(tmp_path), link("run", "sample"))
    text = read_text(page)
    for said in ("Block 5 stands out", "63.827", "72.213", "94.9%", "▲ flagged", "KL 0.0"):
        assert said in text
    assert len(find_type(page, "Graph")) == 2


def test_the_address_decides_how_a_run_is_seen(tmp_path: Path) -> None:
    write_run(tmp_path)
    page, _ = show(make_client(tmp_path), "/run/sample", "?metric=delta_ppl&scale=log")
    layout = find_type(page, "Graph")[0]["figure"]["layout"]
    assert "signed log scale" in [note["text"] for note in layout["annotations"]]
    assert layout["yaxis"]["title"]["text"] == "ΔPPL"
    assert {s["value"] for s in find_type(page, "SegmentedControl")} == {"delta_ppl", "log"}


def test_no_runs_says_how_to_make_one(tmp_path: Path) -> None:
    page, _ = show(make_client(tmp_path), "/")
    assert "awqscope demo" in read_text(page)


def test_what_is_not_there_says_so(tmp_path: Path) -> None:
    write_run(tmp_path)
    client = make_client(tmp_path)
    for address in ("/nowhere", "/run/sample/none"):
        assert "No such page" in read_text(show(client, address)[0])
    assert "There is no run unknown" in read_text(show(client, link("run", "unknown"))[0])
    for address in ("/run/..%2Fsample", "/run/%2Fetc", "/run/.", "/run/%00"):
        assert "There is no run" in read_text(show(client, address)[0])


def test_read_only_offers_no_new_run(tmp_path: Path) -> None:
    client = make_client(tmp_path, read_only=True)
    assert "No such page" in read_text(show(client, "/new")[0])
    assert "New run" not in client.get("/_dash-layout").text
    assert "New run" in make_client(tmp_path).get("/_dash-layout").text


def damage_record(path: Path) -> None:
    (path / "run.json").write_text('{"schema": 1, "sta')


def make_newer(path: Path) -> None:
    change_record(path, schema=99)


def make_odd(path: Path) -> None:
    change_record(path, headline={"kl": 3})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_record, "cannot be read"),
        (make_newer, "run of schema 99"),
        (make_odd, "has no usable 'headline.ppl'"),
    ],
)
def test_damaged_runs_say_so_and_spoil_no_list(
    tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(write_run(tmp_path, "odd"))
    write_run(tmp_path, "whole")
    client = make_client(tmp_path)
    assert said in read_text(show(client, link("run", "odd"))[0])
    rows = find_type(show(client, "/")[0], "AgGrid")[0]["rowData"]
    assert [(row["name"], row["state"]) for row in rows] == [("whole", "done"), ("odd", "damaged")]
    assert said in rows[1]["verdict"]


def test_a_run_without_token_hashes_is_compared(tmp_path: Path) -> None:
    """Runs of earlier versions do not say on which tokens they were measured; their tables do."""
    write_run(tmp_path, "new")
    record = json.loads((write_run(tmp_path, "old") / "run.json").read_text(encoding="utf-8"))
    for entry in ("ppl_definition", "calibration"):
        record[entry].pop("tokens_sha256", None)
    change_record(tmp_path / "old", **record)
    page, _ = show(make_client(tmp_path), "/compare", "?a=old&b=new")
    said = read_text(page)
    assert "A and B are the same model" in said
    assert "not known" in said.partition("Settings that differ")[2]
    (tmp_path / "old" / "tokens.parquet").unlink()
    page, _ = show(make_client(tmp_path), "/compare", "?a=old&b=new")
    said = read_text(page)
    assert "It is not known whether the texts are the same" in said
    assert "not known" in said.partition("Settings that differ")[2]
    assert "Block by block" in said


def test_the_gate_of_a_run_is_drawn_as_text(tmp_path: Path) -> None:
    write_run(tmp_path, "plain")
    page, _ = show(make_client(tmp_path), link("run", "plain"))
    marks = [
        cell
        for table in find_type(page, "Table")
        for row in table["rows"]
        for cell in row
        if isinstance(cell, dict) and "look" in cell
    ]
    assert {cell["text"] for cell in marks} == {"✓ pass"}
    assert {cell["look"] for cell in marks} == {"mark good"}
    assert "children=" not in json.dumps(page)


def test_cells_that_cannot_be_drawn_are_a_fault() -> None:
    with pytest.raises(TypeError, match="cannot hold Div"):
        table({"a": "A"}, [{"a": html.Div("x")}])


def test_a_failed_run_says_the_remedy(tmp_path: Path) -> None:
    error = {"message": f"the disk is full {SCRIPT}", "remedy": "free some space"}
    write_run(tmp_path, "failed", state="failed", error=error)
    client = make_client(tmp_path)
    page, live = show(client, link("run", "failed"))
    assert not live
    assert "This run stopped" in read_text(page)
    assert "Remedy: free some space" in read_text(page)
    assert error["message"] in read_text(page)


def test_a_damaged_table_is_its_pages_trouble(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    (path / "units.parquet").write_bytes(b"PAR1 and no more")
    client = make_client(tmp_path)
    text = read_text(show(client, link("run", "sample"))[0])
    assert "cannot be shown" in text and "units.parquet" in text
    assert find_type(show(client, "/")[0], "AgGrid")


@pytest.mark.parametrize("stage", ["search", "sweep"])
def test_a_run_under_way_is_live(tmp_path: Path, stage: str) -> None:
    path = write_run(tmp_path, state="running")
    if stage == "search":
        change_record(path, headline={}, stages={stage: {"state": "running"}})
        for name in ("blocks", "units", "tokens", "activations"):
            (path / f"{name}.parquet").unlink()
    client = make_client(tmp_path)
    with RunDirectory(path).lock():
        for address in ("/", link("run", "sample")):
            page, live = show(client, address)
            assert live
        assert "Progress" in read_text(page)
    page, live = show(client, link("run", "sample"))
    assert not live
    assert "Nobody works on this run" in read_text(page)


def test_the_stamp_changes_with_the_run(tmp_path: Path) -> None:
    path = write_run(tmp_path, state="running")
    store, page = Store(tmp_path), Page("run", "sample")
    before = stamp(store, page)
    change_record(path, updated="later")
    assert stamp(store, page) != before
    assert stamp(store, Page("run", "none")) == ""
    assert not is_live(store, Page("run", "none"))


def test_the_stamp_of_the_list_changes_with_what_it_says(tmp_path: Path) -> None:
    store, page = Store(tmp_path), Page("runs")
    assert stamp(store, page) == ""
    path = write_run(tmp_path)
    before = stamp(store, page)
    assert before == stamp(store, page) != ""
    change_record(path, model="another")
    assert stamp(store, page) != before


def look(client: FlaskClient, seen: str, **here: Any) -> dict[str, Any]:
    """What an open page is sent when it asks whether anything has changed."""
    known = [entry["output"] for entry in client.get("/_dash-dependencies").json]
    output = next(found for found in known if found.startswith("..page.children@"))
    names = [found.split(".") for found in output.strip(".").split("...")]
    body = {
        "output": output,
        "outputs": [{"id": key, "property": name} for key, name in names],
        "inputs": [{"id": "here", "property": "data", "value": here}],
        "state": [{"id": "seen", "property": "data", "value": seen}],
        "changedPropIds": ["here.data"],
    }
    answer = client.post("/_dash-update-component", json=body)
    assert answer.status_code in (200, 204), answer.text
    return json.loads(answer.text) if answer.text else {}


def test_the_list_ticks_while_a_run_goes_on(tmp_path: Path) -> None:
    client, place = make_client(tmp_path), {"path": "/", "search": ""}
    assert "page" not in look(client, "", **place, listed=False)["response"]
    path = write_run(tmp_path, state="running")
    with RunDirectory(path).lock():
        begun = look(client, "", **place, listed=False)["response"]
        assert find_type(begun["page"]["children"], "AgGrid")
        assert not begun["live"]["disabled"]
        seen = begun["seen"]["data"]
        assert "sideUpdate" not in look(client, seen, **place, listed=True)
        (path / "progress.jsonl").write_text(
            json.dumps({"stage": "sweep", "done": 3, "total": 8, "eta": 40.0}) + "\n"
        )
        sent = look(client, seen, **place, listed=True)
        assert "sweep 38%" in sent["sideUpdate"]["runs-grid"]["rowData"][0]["verdict"]
    change_record(path, state="done")
    ended = look(client, seen, **place, listed=True)
    assert ended["sideUpdate"]["runs-grid"]["rowData"][0]["state"] == "done"
    while not ended["response"]["live"]["disabled"]:
        time.sleep(0.05)
        ended = look(client, seen, **place, listed=True)
    assert ended["sideUpdate"]["runs-grid"]["rowData"][0]["answer"] == "✓ May ship"


def test_what_no_run_writes_spoils_no_list(tmp_path: Path) -> None:
    record = json.loads((SAMPLE / "run.json").read_text(encoding="utf-8"))
    write_run(tmp_path, "odd", headline={**record["headline"], "recovered": "most"})
    write_run(tmp_path, "whole")
    client = make_client(tmp_path)
    rows = find_type(show(client, "/")[0], "AgGrid")[0]["rowData"]
    assert {row["name"]: row["state"] for row in rows} == {"odd": "damaged", "whole": "done"}
    assert "cannot be shown" in read_text(show(client, link("run", "odd"))[0])


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("/", {"async-community.js"}),
        ("/run/sample", {"plotly.min.js"}),
        ("/run/sample/recipe", {"plotly.min.js"}),
        ("/run/none", set()),
        ("/run/early", set()),
        ("/new", set()),
    ],
)
def test_pages_ask_early_for_what_they_need(tmp_path: Path, address: str, wanted: set[str]) -> None:
    write_run(tmp_path)
    write_run(tmp_path, "early", headline={})
    client = make_client(tmp_path)
    early = re.findall('<link rel="preload" href="([^"]*)"', client.get(address).text)
    assert {path.rpartition("/")[2] for path in early} == wanted
    for path in early:
        assert client.get(path).status_code == 200


def test_every_script_of_the_page_is_there_and_used(tmp_path: Path) -> None:
    client = make_client(tmp_path)
    scripts = re.findall('<script src="([^"]*)"', client.get("/").text)
    assert {"components.js", "awqscope.js"} < {
        path.split("/")[-1].split("?")[0] for path in scripts
    }
    assert not [path for path in scripts if "dash_table" in path]
    for path in scripts:
        assert client.get(path).status_code == 200


def test_text_of_a_run_stays_text(tmp_path: Path) -> None:
    path = write_run(tmp_path, ODD, model=SCRIPT)
    write_tokens(path, make_tokens(4, 30, text=SCRIPT))
    client = make_client(tmp_path)
    addresses = [link("runs"), link("compare", a=ODD, b=ODD), link("run", SCRIPT)]
    for address in (*addresses, *(link(page, ODD, 0) for page in PAGES)):
        path_part, _, search = address.partition("?")
        page, _ = show(client, path_part, search)
        assert not {found["type"] for found in walk(page)} & LIVELY
        for props in (found["props"] for found in walk(page)):
            assert not {"dangerouslySetInnerHTML", "srcDoc"} & set(props)
            assert "javascript:" not in str(props.get("href", ""))
            # plotly reads markup in text; what it is given is escaped.
            assert not re.search("<(script|img)", json.dumps(props.get("figure", "")))
            assert not props.get("dangerously_allow_code")
    assert ODD in read_text(show(client, link("run", ODD))[0])
    assert SCRIPT in json.dumps(find_type(show(client, "/")[0], "AgGrid")[0]["rowData"])
    assert "<img" not in client.get(link("run", ODD)).text


def test_a_name_that_is_no_text_spoils_no_list(tmp_path: Path) -> None:
    name = b"\xff".decode(errors="surrogateescape")
    write_run(tmp_path, name)
    write_run(tmp_path, "whole")
    rows = find_type(show(make_client(tmp_path), "/")[0], "AgGrid")[0]["rowData"]
    assert {row["href"] for row in rows} == {"/run/whole", "/run/%FF"}


def test_bad_requests_do_not_stop_the_server(tmp_path: Path) -> None:
    client = make_client(tmp_path)
    client.application.config["PROPAGATE_EXCEPTIONS"] = False
    for body in ("", "{", "[]", '{"output": "page.children"}'):
        answer = client.post("/_dash-update-component", data=body, content_type="application/json")
        assert answer.status_code >= 400
        assert "Traceback" not in answer.text
    assert show(client, "/")[0]


def test_the_sample_is_shown_where_it_lies() -> None:
    client = make_client(SAMPLE.parent)
    assert isinstance(client.application, flask.Flask)
    assert "Block 5 stands out" in read_text(show(client, link("run", "sample"))[0])


def test_the_server_imports_no_torch() -> None:
    program = "import awqscope.app.dashboard.server, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
