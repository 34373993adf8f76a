#!/usr/bin/env bash
# bitsandbytes quantizes a matrix to NF4 in blocks of 64 that run through its rows, so that a row of 96 ends
# in the middle of a block. Its code for CPUs with AVX-512 dequantizes as if every row began a block of its
# own: of such a matrix it gives other values than codes and maxima stand for, three times as far from the
# weight, and without a word. Rows that are a multiple of 64 come out right.
#
# Versions: bitsandbytes 0.50.2, torch 2.13.0 (CPU with AVX-512), Python 3.11, Linux.
# Seen:
#   rows of 128: 0.000 from what is stored
#   rows of 96: more than 0.2 from what is stored
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
install torch==2.13.0
install bitsandbytes==0.50.2
cat >"$folder/dequantize.py" <<'PYTHON'
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

torch.manual_seed(0)
for columns in (128, 96):
    weight = torch.randn(48, columns)
    codes, state = quantize_4bit(weight, blocksize=64, quant_type="nf4")
    octets = codes.flatten()
    values = state.code[torch.stack([octets >> 4, octets & 15], 1).flatten().long()]
    stored = (values * state.absmax.repeat_interleave(64)).view_as(weight)
    apart = ((dequantize_4bit(codes, state) - stored).norm() / weight.norm()).item()
    said = "more than 0.2" if apart > 0.2 else f"{apart:.3f}"
    print(f"rows of {columns}: {said} from what is stored")
PYTHON
seen=$("$folder/venv/bin/python" "$folder/dequantize.py" 2>/dev/null)
echo "$seen"
expected=$(sed -n '/^# Seen/,/^set/s/^#   //p' "$0")
[ "$seen" = "$expected" ] || { echo "it behaves otherwise now" >&2; exit 1; }
