"""Files come packed to whoever takes them so, and are what they were."""

import gzip
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from awqscope.app.dashboard.packed import pack
from awqscope.app.dashboard.shell import GRID, PLOTLY
from tests.app.dashboard.test_server import make_client
from tests.help.runs import write_run

LONG = ("/assets/awqscope.css", "/assets/awqscope.js", "/assets/components.js", PLOTLY, GRID)


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


def test_only_files_are_packed(tmp_path: Path) -> None:
    write_run(tmp_path)
    client = make_client(tmp_path)
    for path in ("/", "/_dash-layout", "/assets/icon.svg", "/assets/nothing.js"):
        answer = client.get(path, headers={"Accept-Encoding": "gzip"})
        assert answer.content_encoding is None
    whole = client.get(LONG[1], headers={"Accept-Encoding": "gzip"})
    seen = {"Accept-Encoding": "gzip", "If-None-Match": whole.headers["ETag"]}
    assert client.get(LONG[1], headers=seen).status_code == 304
    part = client.get(LONG[1], headers={"Accept-Encoding": "gzip", "Range": "bytes=0-9"})
    assert part.status_code == 206 and len(part.data) == 10
    head = client.head(LONG[1], headers={"Accept-Encoding": "gzip"})
    assert head.status_code == 200 and head.data == b""


def test_different_files_are_kept_apart() -> None:
    first, second = b"a" * 5000, b"b" * 5000
    assert gzip.decompress(pack(first)) == first
    assert gzip.decompress(pack(second)) == second
    assert pack(first) is pack(first)
