"""What is sent comes packed to whoever takes it so, and is what it was."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from plotly.offline import get_plotlyjs_version

from awqscope.app.dashboard import packed
from awqscope.app.dashboard.packed import CHARTS, pack
from awqscope.app.dashboard.shell import GRID
from awqscope.app.dashboard.urls import link
from awqscope.app.figures.script import BUNDLE
from tests.app.dashboard.test_server import make_client, show
from tests.help.runs import write_run

LONG = ("/assets/awqscope.css", "/assets/awqscope.js", "/assets/components.js", CHARTS, GRID)


@pytest.fixture
def client(tmp_path: Path) -> FlaskClient:
    return make_client(tmp_path)


@pytest.mark.parametrize("path", LONG)
def test_a_packed_file_is_the_file(client: FlaskClient, path: str) -> None:
    plain = client.get(path)
    assert plain.status_code == 200 and plain.content_encoding is None
    for _ in range(2):
        packed = client.get(path, headers={"Accept-Encoding": "br, gzip"})
        assert packed.content_encoding == "gzip"
        assert int(packed.headers["Content-Length"]) == len(packed.data)
        assert "Accept-Encoding" in packed.headers["Vary"]
        assert packed.mimetype == plain.mimetype
        assert gzip.decompress(packed.data) == plain.data
    assert len(packed.data) < 0.45 * len(plain.data)
    assert "Accept-Encoding" in plain.headers["Vary"]


@pytest.mark.parametrize("encodings", ["", "identity", "gzip;q=0", "br"])
def test_who_takes_nothing_packed_gets_nothing_packed(client: FlaskClient, encodings: str) -> None:
    answer = client.get(LONG[0], headers={"Accept-Encoding": encodings})
    assert answer.content_encoding is None and b"--ground" in answer.data


def test_pages_are_packed_and_parts_of_files_are_not(tmp_path: Path) -> None:
    write_run(tmp_path)
    client = make_client(tmp_path)
    first = client.get("/", headers={"Accept-Encoding": "gzip"})
    assert first.content_encoding == "gzip" and b"skeleton" in gzip.decompress(first.data)
    for path in ("/_dash-layout", "/_dash-dependencies"):
        answer = client.get(path, headers={"Accept-Encoding": "gzip"})
        assert answer.content_encoding == "gzip"
        assert gzip.decompress(answer.data) == client.get(path).data
    for path in ("/assets/icon.svg", "/assets/nothing.js"):
        answer = client.get(path, headers={"Accept-Encoding": "gzip"})
        assert answer.content_encoding is None
    for path in (LONG[1], CHARTS):
        whole = client.get(path, headers={"Accept-Encoding": "gzip"})
        seen = {"Accept-Encoding": "gzip", "If-None-Match": whole.headers["ETag"]}
        assert client.get(path, headers=seen).status_code == 304
    part = client.get(LONG[1], headers={"Accept-Encoding": "gzip", "Range": "bytes=0-9"})
    assert part.status_code == 206 and len(part.data) == 10
    head = client.head(LONG[1], headers={"Accept-Encoding": "gzip"})
    assert head.status_code == 200 and head.data == b""


def test_what_a_page_holds_is_packed(tmp_path: Path) -> None:
    write_run(tmp_path)
    client = make_client(tmp_path)
    plain, _ = show(client, link("run", "sample"))
    client.environ_base["HTTP_ACCEPT_ENCODING"] = "gzip"
    opened = client.open

    def unpack(*args: Any, **options: Any) -> Any:
        answer = opened(*args, **options)
        assert answer.content_encoding == "gzip"
        answer.set_data(gzip.decompress(answer.data))
        return answer

    client.open = unpack  # type: ignore[method-assign]
    assert show(client, link("run", "sample"))[0] == plain


def test_charts_are_drawn_by_the_small_bundle_of_the_installed_plotly(client: FlaskClient) -> None:
    """Where this fails, plotly has another plotly.js: `plotly.js-cartesian-dist-min` of that
    version belongs in app/figures/plotly, packed by gzip -9n."""
    sent = client.get(CHARTS).data
    assert sent == gzip.decompress(BUNDLE.read_bytes()) and len(sent) < 1.6e6
    assert f"plotly.js (cartesian - minified) v{get_plotlyjs_version()}".encode() in sent[:200]


def test_another_plotly_is_sent_whole(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(packed, "BUNDLE", tmp_path / "none")
    assert len(client.get(CHARTS).data) > 4e6


def test_different_files_are_kept_apart() -> None:
    first, second = b"a" * 5000, b"b" * 5000
    assert gzip.decompress(pack(first)) == first
    assert gzip.decompress(pack(second)) == second
    assert pack(first) is pack(first)
