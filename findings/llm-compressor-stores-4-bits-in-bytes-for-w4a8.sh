#!/usr/bin/env bash
# llm-compressor writes the 4-bit weights of its scheme W4A8 a byte each: format `int-quantized`, a tensor
# `weight` of int8 [N, K] whose values are -8 to 7. Those of W4A16 it packs, eight to an int32
# (`pack-quantized`, `weight_packed`). Of the same weights, in the same groups, the file of W4A8 therefore takes
# twice the bytes of W4A16's, as much as one of 8 bits, and num_bits in its config.json says nothing of
# the size.
#
# Versions: llmcompressor 0.14.0.1, compressed-tensors 0.19.0, transformers 5.17.0, torch 2.13.0 (CPU), Python 3.11, Linux.
# Seen, of a linear [256, 256]:
#   W4A16: num_bits 4, pack-quantized, weight_packed int32 [256, 32], 32768 bytes
#   W4A8: num_bits 4, int-quantized, weight int8 [256, 256] from -8 to 7, 65536 bytes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
install torch==2.13.0
install llmcompressor==0.14.0.1 compressed-tensors==0.19.0 transformers==5.17.0
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1
cat >"$folder/make.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import torch
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

sizes = {"vocab_size": 64, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}
torch.manual_seed(0)
source = Path(sys.argv[1], "source")
LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4)).save_pretrained(source)
for scheme in ("W4A16", "W4A8"):
    model = LlamaForCausalLM.from_pretrained(source)
    modifier = QuantizationModifier(targets="Linear", scheme=scheme, ignore=["lm_head"])
    oneshot(model=model, recipe=[modifier])
    out = Path(sys.argv[1], scheme)
    model.save_pretrained(out, save_compressed=True)
    said = json.loads((out / "config.json").read_text())["quantization_config"]
    bits = said["config_groups"]["group_0"]["weights"]["num_bits"]
    stored = load_file(out / "model.safetensors")
    linear = "model.layers.0.self_attn.q_proj."
    name = next(n for n in (f"{linear}weight_packed", f"{linear}weight") if n in stored)
    held = stored[name]
    span = f" from {held.min()} to {held.max()}" if held.dtype == torch.int8 else ""
    kind = str(held.dtype).removeprefix("torch.")
    print(
        f"{scheme}: num_bits {bits}, {said['format']}, {name.removeprefix(linear)} {kind} "
        f"{list(held.shape)}{span}, {held.nbytes} bytes"
    )
PYTHON
seen=$("$folder/venv/bin/python" "$folder/make.py" "$folder" 2>/dev/null | grep '^W4')
echo "$seen"
expected=$(sed -n '/^# Seen/,/^set/s/^#   //p' "$0")
[ "$seen" = "$expected" ] || { echo "it behaves otherwise now" >&2; exit 1; }
