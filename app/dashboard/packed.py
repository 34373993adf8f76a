"""What the dashboard sends, packed for the way to a browser that takes it so: scripts, styles and
pages are less than a third as long then. A file is packed once and kept; the largest of them, the
script that draws charts, lies beside the figures packed already."""

import gzip
import hashlib
from collections import OrderedDict
from threading import Lock

import flask

from awqscope.app.figures.script import BUNDLE

FILES = ("/_dash-component-suites/", "/assets/")
FILE_KINDS = ("text/javascript", "application/javascript", "text/css", "image/svg+xml")
# Pages and what is in them: each is another, so that they are packed anew, as fast as may be.
PAGE_KINDS = ("text/html", "application/json")
FILE_LEVEL, PAGE_LEVEL = 6, 3
LEAST_BYTES = 1_000
KEPT = 64
# Where Dash asks for plotly.
CHARTS = "/_dash-component-suites/plotly/package_data/plotly.min.js"

_lock = Lock()
_kept: OrderedDict[bytes, bytes] = OrderedDict()


def send_charts() -> flask.Response | None:
    """The answer to who asks for the script that draws charts; None for all other requests, and
    where only the whole of plotly will do."""
    asked = flask.request
    if asked.path != CHARTS or asked.method != "GET" or not BUNDLE.exists():
        return None
    content, is_packed = BUNDLE.read_bytes(), bool(asked.accept_encodings["gzip"])
    answer = flask.Response(
        content if is_packed else gzip.decompress(content), mimetype="application/javascript"
    )
    if is_packed:
        answer.content_encoding = "gzip"
    answer.vary.add("Accept-Encoding")
    # The address says no version: a browser asks whether it has the right one.
    answer.cache_control.no_cache = True
    answer.set_etag(f"{BUNDLE.name}-{len(content)}")
    answer.make_conditional(asked)
    return answer


def pack_answer(answer: flask.Response) -> flask.Response:
    """`answer`, packed if it is a whole one that gains by it and the request allows it."""
    asked = flask.request
    is_file = asked.path.startswith(FILES)
    kinds = FILE_KINDS if is_file else PAGE_KINDS
    if answer.status_code != 200 or asked.method == "HEAD" or answer.mimetype not in kinds:
        return answer
    if answer.content_encoding:
        return answer
    answer.vary.add("Accept-Encoding")
    if not asked.accept_encodings["gzip"]:
        return answer
    answer.direct_passthrough = False
    content = answer.get_data()
    if len(content) >= LEAST_BYTES:
        answer.set_data(pack(content) if is_file else gzip.compress(content, PAGE_LEVEL, mtime=0))
        answer.content_encoding = "gzip"
    return answer


def pack(content: bytes) -> bytes:
    """`content` as gzip, from memory if it was packed before."""
    key = hashlib.sha256(content).digest()
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    packed = gzip.compress(content, FILE_LEVEL, mtime=0)
    with _lock:
        _kept[key] = packed
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return packed
