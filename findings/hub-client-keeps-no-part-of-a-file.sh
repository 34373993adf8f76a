#!/usr/bin/env bash
# A download by huggingface_hub that is ended midway (Ctrl-C, kill, a full disk, a lost machine) keeps no part of
# the file that was under way: the next process fetches it from its first byte. Earlier major versions kept an
# `.incomplete` file and went on from its end. Files that had come whole are kept, so a model in one large
# safetensors file starts over each time, and one in shards loses a shard at most. Within one process a transfer
# that breaks off does go on, but from a multiple of 10 MiB: what came after that is fetched again.
#
# Versions: huggingface_hub 2.4.0 (without hf-xet's storage), Python 3.11, Linux; the hub is a server on loopback.
# Seen: of a file of 32 MiB
#   broken off after 15 MiB, same process:  bytes=10485760-
#   process ended after 15 MiB, next one:   asked for without a range, all of it
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check huggingface_hub==2.4.0
cat >"$folder/try.py" <<'PYTHON'
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CONTENT = os.urandom(1 << 20) * 32
COMMIT = "0" * 40
FIRST = 15 << 20
ranges, stops = [], []


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, with_body):
        if "/api/" in self.path:
            tree = [{"type": "file", "path": "big.bin", "size": len(CONTENT), "oid": "1" * 40}]
            info = {"id": "org/model", "sha": COMMIT, "siblings": [{"rfilename": "big.bin"}]}
            body = json.dumps(tree if "/tree/" in self.path else info).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        asked = self.headers.get("Range")
        start = int(asked[6:].split("-")[0]) if asked else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"' + hashlib.sha256(CONTENT).hexdigest() + '"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        if not with_body:
            return
        ranges.append(asked)
        stop = stops.pop() if stops else None
        self.wfile.write(CONTENT[start : FIRST if stop else None])
        if stop == "break":
            self.close_connection = True
        elif stop == "hang":
            self.wfile.flush()
            ended.wait(60)
            self.close_connection = True


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
DOWNLOAD = "from huggingface_hub import hf_hub_download as get; get('org/model', 'big.bin')"


def download(home):
    address = f"http://127.0.0.1:{server.server_address[1]}"
    quiet = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment = {**os.environ, **quiet, "HF_ENDPOINT": address, "HF_HOME": str(home)}
    return subprocess.Popen(
        [sys.executable, "-c", DOWNLOAD], env=environment, stderr=subprocess.DEVNULL
    )


here = Path(sys.argv[1])
ended = threading.Event()
stops.append("break")
assert download(here / "one").wait() == 0
within = ranges[1:]
ranges.clear()
stops.append("hang")
first = download(here / "two")
deadline = time.monotonic() + 60
# What has come is on the disk in pieces of 10 MiB.
while time.monotonic() < deadline and not any(
    path.stat().st_size >= 10 << 20 for path in (here / "two").rglob("*.incomplete")
):
    time.sleep(0.1)
first.terminate()
first.wait()
ended.set()
assert download(here / "two").wait() == 0
print(f"same process: {within[0]}; next process: {ranges[1]}")
PYTHON
seen=$("$folder/venv/bin/python" "$folder/try.py" "$folder")
echo "$seen"
[ "$seen" = "same process: bytes=10485760-; next process: None" ] || { echo "it behaves otherwise now" >&2; exit 1; }
