"""The dashboard's files, packed for the way to a browser that takes them so: scripts and styles are
less than a third as long then. Each is packed once and kept."""

import gzip
import hashlib
from collections import OrderedDict
from threading import Lock

import flask

FILES = ("/_dash-component-suites/", "/assets/")
KINDS = ("text/javascript", "application/javascript", "text/css", "image/svg+xml")
LEAST_BYTES = 1_000
KEPT = 64

_lock = Lock()
_kept: OrderedDict[bytes, bytes] = OrderedDict()


def pack_file(answer: flask.Response) -> flask.Response:
    """`answer`, packed if it is a whole file that gains by it and the request allows it."""
    asked = flask.request
    is_file = asked.method == "GET" and asked.path.startswith(FILES) and answer.mimetype in KINDS
    if answer.status_code != 200 or not is_file or answer.content_encoding:
        return answer
    answer.vary.add("Accept-Encoding")
    if not asked.accept_encodings["gzip"]:
        return answer
    answer.direct_passthrough = False
    content = answer.get_data()
    if len(content) >= LEAST_BYTES:
        answer.set_data(pack(content))
        answer.content_encoding = "gzip"
    return answer


def pack(content: bytes) -> bytes:
    """`content` as gzip, from memory if it was packed before."""
    key = hashlib.sha256(content).digest()
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    packed = gzip.compress(content, 6, mtime=0)
    with _lock:
        _kept[key] = packed
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return packed
