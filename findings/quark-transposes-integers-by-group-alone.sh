#!/usr/bin/env bash
# AMD Quark exports (`export_safetensors`) integer weights that share scales by group transposed, [K, N], and
# their scales [K / group, N]; the same integers with a scale a channel stand as torch has them, [N, K], and
# so does FP8 by group. Names and types are the same (`weight`, int8, `weight_scale`), and nothing in
# config.json says it: a reader goes by qscheme and dtype together. Of a square weight, such as o_proj often
# is, the wrong way round raises no error.
#
# Versions: amd-quark 0.13, transformers 5.23.0, torch 2.13.0 (CPU), Python 3.11, Linux.
# Seen, of a linear [512, 256], in groups of 128:
#   int8 per_group: weight int8 [256, 512], scale [2, 512], transposed: True
#   int8 per_channel: weight int8 [512, 256], scale [512], transposed: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
install torch==2.13.0
install amd-quark==0.13 transformers==5.23.0 accelerate
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1
cat >"$folder/make.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import torch
from quark.torch import LLMTemplate, ModelQuantizer, export_safetensors
from quark.torch.quantization import Int8PerChannelSpec, Int8PerGroupSpec
from quark.torch.quantization.config.config import QLayerConfig
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

sizes = {"vocab_size": 64, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1}
sizes |= {"num_attention_heads": 4, "architectures": ["LlamaForCausalLM"]}
common = {"symmetric": True, "scale_type": "float", "round_method": "half_even", "is_dynamic": False}
specs = {
    "group": Int8PerGroupSpec(**common, ch_axis=-1, group_size=128),
    "channel": Int8PerChannelSpec(**common, ch_axis=0),
}
name = "model.layers.0.mlp.gate_proj"
for kind, spec in specs.items():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    weight = model.get_submodule(name).weight.detach().clone()
    LLMTemplate.register_scheme(kind, config=QLayerConfig(weight=spec.to_quantization_spec()))
    config = LLMTemplate.get("llama").get_config(scheme=kind, exclude_layers=["lm_head"])
    quantizer = ModelQuantizer(config)
    model = quantizer.freeze(quantizer.quantize_model(model, DataLoader(torch.arange(32)[None])))
    out = Path(sys.argv[1], kind)
    export_safetensors(model, out)
    said = json.loads((out / "config.json").read_text())["quantization_config"]
    said = said["global_quant_config"]["weight"]
    stored = load_file(out / "model.safetensors")
    codes, scale = stored[f"{name}.weight"], stored[f"{name}.weight_scale"]

    def lies(values):
        """Whether the codes are those of the weight as it stands."""
        return values.shape == weight.shape and (values.sign() * weight.sign() >= 0).all().item()

    if not lies(codes) and not lies(codes.T):
        sys.exit("neither way round are they the weight's")
    print(
        f"{said['dtype']} {said['qscheme']}: weight {str(codes.dtype).removeprefix('torch.')} "
        f"{list(codes.shape)}, scale {list(scale.shape)}, transposed: {lies(codes.T)}"
    )
PYTHON
seen=$("$folder/venv/bin/python" "$folder/make.py" "$folder" 2>/dev/null | grep '^int8 ')
echo "$seen"
expected=$(sed -n '/^# Seen/,/^set/s/^#   //p' "$0")
[ "$seen" = "$expected" ] || { echo "it behaves otherwise now" >&2; exit 1; }
