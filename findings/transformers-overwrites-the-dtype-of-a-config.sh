#!/usr/bin/env bash
# `AutoModelForCausalLM.from_config(config, dtype=...)` writes that type into the config object that it is
# given. Who builds a skeleton in float32 (on meta, to look at its modules) and then asks `config.dtype` in
# which type the checkpoint is to be served is told float32, whatever config.json says. The file on disk is
# untouched, so only the order of two lines decides.
#
# Versions: transformers 5.23.0, torch 2.13.0 (CPU), Python 3.11, Linux.
# Seen: before torch.bfloat16, after torch.float32
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1
cat >"$folder/build.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

here = Path(sys.argv[1])
sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
LlamaConfig(**sizes, num_attention_heads=2, dtype="bfloat16").save_pretrained(here)
config = AutoConfig.from_pretrained(here)
before = config.dtype
with torch.device("meta"):
    AutoModelForCausalLM.from_config(config, dtype=torch.float32)
stored = json.loads((here / "config.json").read_text())["dtype"]
print(f"before {before}, after {config.dtype}, on disk {stored}")
PYTHON
seen=$("$folder/venv/bin/python" "$folder/build.py" "$folder/model" 2>/dev/null)
echo "$seen"
[ "$seen" = "before torch.bfloat16, after torch.float32, on disk bfloat16" ] || { echo "it behaves otherwise now" >&2; exit 1; }
