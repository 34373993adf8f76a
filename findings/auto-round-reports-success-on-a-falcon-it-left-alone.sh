#!/usr/bin/env bash
# auto-round goes through every block of a Falcon model, quantizes nothing, and reports success: it writes a
# checkpoint whose config.json says 4 bits and a packing format, and whose weights are those it was given,
# in full size. Falcon's linears are a subclass of nn.Linear (FalconLinear), which it does not count among the
# layers it knows; no warning names that. The perplexity of the result is perfect, so a measurement praises
# the quantization that never was.
#
# Versions: auto-round 0.16.1, transformers 5.23.0, torch 2.13.0 (CPU), Python 3.11, Linux.
# Seen:
#   llama: config 4 bits, linears packed 14, left as they were 0
#   falcon: config 4 bits, linears packed 0, left as they were 8
#   warnings that name a layer: 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
install torch==2.13.0
install auto-round==0.16.1 transformers==5.23.0
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1
cat >"$folder/round.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import torch
from auto_round import AutoRound
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

words = Tokenizer(WordLevel({f"t{i}": i for i in range(64)}, unk_token="t0"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="t1", pad_token="t1")
sizes = {"vocab_size": 64, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
sizes |= {"bos_token_id": 1, "eos_token_id": 1}
falcon = {"new_decoder_architecture": True, "num_kv_heads": 2}
models = {
    "llama": LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=256)),
    "falcon": FalconForCausalLM(FalconConfig(**sizes, **falcon)),
}
for kind, model in models.items():
    before = {name: values.clone() for name, values in model.state_dict().items()}
    out = Path(sys.argv[1], kind)
    rounding = AutoRound(
        model, tokenizer, scheme="W4A16", group_size=32, iters=0, disable_opt_rtn=True
    )
    rounding.quantize_and_save(str(out), format="auto_round")
    config = json.loads(next(out.rglob("config.json")).read_text())["quantization_config"]
    stored = load_file(next(out.rglob("model.safetensors")))
    packed = sum(name.endswith(".qweight") for name in stored)
    kept = [
        name
        for name, values in before.items()
        if ".weight" in name and values.ndim == 2 and name in stored
        and "embed" not in name and "lm_head" not in name
        and torch.equal(stored[name], values)
    ]
    print(
        f"{kind}: config {config['bits']} bits, linears packed {packed}, "
        f"left as they were {len(kept)}"
    )
PYTHON
seen=$("$folder/venv/bin/python" "$folder/round.py" "$folder" 2>"$folder/said" | grep "linears packed")
seen+=$'\n'"warnings that name a layer: $(grep -ciE "warn.*(falcon|linear|layer_type|not supported|unsupported)" "$folder/said" || true)"
echo "$seen"
expected=$(sed -n '/^# Seen/,/^set/s/^#   //p' "$0")
[ "$seen" = "$expected" ] || { echo "it behaves otherwise now" >&2; exit 1; }
