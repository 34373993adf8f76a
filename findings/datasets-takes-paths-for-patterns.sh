#!/usr/bin/env bash
# `load_dataset(..., data_files=PATH)` takes PATH for a glob pattern even where a file of exactly that name
# exists. `held[1].txt` (what a browser calls its second download of held.txt, minus the blank) reads
# `held1.txt`, whose text is measured without a word; where that file is missing, the existing one cannot be
# read. A name with `*` adds every file that matches to the one that was asked for.
#
# Versions: datasets 5.2.0 (fsspec 2026.9.0), Python 3.11, Linux.
# Seen:
#   held[1].txt beside held1.txt: the rows of held1.txt
#   held[1].txt alone: DatasetGenerationError
#   a*.txt beside ab.txt: both files' rows
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check datasets==5.2.0 fsspec==2026.9.0
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1
cat >"$folder/read.py" <<'PYTHON'
import sys
from pathlib import Path

from datasets import disable_progress_bars, load_dataset

disable_progress_bars()
here = Path(sys.argv[1])


def read(name: str) -> str:
    try:
        rows = load_dataset("text", data_files=str(here / name), split="train")
    except Exception as error:
        return f"refused ({type(error).__name__})"
    return "+".join(rows["text"])


(here / "held[1].txt").write_text("asked for\n")
alone = read("held[1].txt")
(here / "held1.txt").write_text("another\n")
beside = read("held[1].txt")
(here / "a*.txt").write_text("star\n")
(here / "ab.txt").write_text("plain\n")
print(f"alone: {alone}; beside: {beside}; star: {read('a*.txt')}")
PYTHON
mkdir "$folder/texts"
seen=$("$folder/venv/bin/python" "$folder/read.py" "$folder/texts")
echo "$seen"
[ "$seen" = "alone: refused (DatasetGenerationError); beside: another; star: star+plain" ] || { echo "it behaves otherwise now" >&2; exit 1; }
