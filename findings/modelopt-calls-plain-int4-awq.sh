#!/usr/bin/env bash
# ModelOpt exports a model that was rounded to INT4 in blocks and nothing else
# (INT4_BLOCKWISE_WEIGHT_ONLY_CFG, algorithm max) as `quant_algo: W4A16_AWQ`, `pre_quant_scale: true` in
# hf_quant_config.json, word for word what it says of one that AWQ searched (INT4_AWQ_CFG). No tensor
# pre_quant_scale is in the file then. So what the file calls AWQ may be plain rounding, and a reader that
# goes by the flag asks for tensors that are not there: only their names tell the two apart.
#
# Versions: nvidia-modelopt 0.47.0, transformers 5.23.0, torch 2.13.0 (CPU), Python 3.11, Linux.
# Seen:
#   INT4_BLOCKWISE_WEIGHT_ONLY_CFG: W4A16_AWQ, pre_quant_scale True, 0 such tensors
#   INT4_AWQ_CFG: W4A16_AWQ, pre_quant_scale True, 2 such tensors
#   the same hf_quant_config.json: True, config.json: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
install torch==2.13.0
install nvidia-modelopt==0.47.0 transformers==5.23.0 accelerate requests
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1
cat >"$folder/make.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import modelopt.torch.quantization as mtq
import torch
from modelopt.torch.export import export_hf_checkpoint
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

sizes = {"vocab_size": 64, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1}
sizes |= {"num_attention_heads": 4, "architectures": ["LlamaForCausalLM"]}
torch.manual_seed(0)
lines, said = [], []
for name in ("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "INT4_AWQ_CFG"):
    model = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    mtq.quantize(model, getattr(mtq, name), lambda held: held(torch.arange(64)[None]))
    out = Path(sys.argv[1], name)
    export_hf_checkpoint(model, export_dir=out)
    files = [json.loads((out / each).read_text()) for each in ("hf_quant_config.json", "config.json")]
    said.append(files)
    stated = files[0]["quantization"]
    with safe_open(out / "model.safetensors", framework="pt") as file:
        scales = [key for key in file.keys() if key.endswith(".pre_quant_scale")]
    lines.append(
        f"{name}: {stated['quant_algo']}, pre_quant_scale {stated['pre_quant_scale']}, "
        f"{len(scales)} such tensors"
    )
same = [one == other for one, other in zip(*said, strict=True)]
print("\n".join(lines), f"\nthe same hf_quant_config.json: {same[0]}, config.json: {same[1]}", sep="")
PYTHON
seen=$("$folder/venv/bin/python" "$folder/make.py" "$folder" 2>/dev/null | tail -3)
echo "$seen"
expected=$(sed -n '/^# Seen/,/^set/s/^#   //p' "$0")
[ "$seen" = "$expected" ] || { echo "it behaves otherwise now" >&2; exit 1; }
