#!/usr/bin/env bash
# compressed-tensors 0.18 lays out `pack-quantized` weights of 3, 5, 6 and 7 bits in another way than 0.17,
# under the same names. Up to 0.17.1 an int32 holds 32 // bits codes and its highest bits stay empty; since
# 0.18.0 the codes run on from one word into the next. The quantization config that belongs to either is
# the same to the last key (llm-compressor adds the version of the writer, AutoRound does not), so only
# the width of weight_packed tells them apart, and neither version looks at that: the newer one makes wrong
# weights of an older file without an error, the older one wrong weights of another shape than
# weight_shape says. 4 and 8 bits, on which a new version is tried first, are alike in both.
#
# Versions: compressed-tensors 0.17.1 and 0.18.0, transformers 5.23.0, torch 2.13.0 (CPU), Python 3.11, Linux.
# Seen, of a weight [4, 64]; what was read within a step of it, by bits:
#   0.17.1 words a row {3: 7, 4: 8, 5: 11, 6: 13, 7: 16, 8: 16}
#   0.17.1 reads 0.17.1's: 3 right, 4 right, 5 right, 6 right, 7 right, 8 right
#   0.18.0 words a row {3: 6, 4: 8, 5: 10, 6: 12, 7: 14, 8: 16}
#   0.18.0 reads 0.17.1's: 3 wrong, 4 right, 5 wrong, 6 wrong, 7 wrong, 8 right
#   0.18.0 reads 0.18.0's: 3 right, 4 right, 5 right, 6 right, 7 right, 8 right
#   0.17.1 words a row {3: 7, 4: 8, 5: 11, 6: 13, 7: 16, 8: 16}
#   0.17.1 reads 0.17.1's: 3 right, 4 right, 5 right, 6 right, 7 right, 8 right
#   0.17.1 reads 0.18.0's: 3 wrong [4, 60], 4 right, 5 wrong [4, 60], 6 wrong [4, 60], 7 wrong [4, 56], 8 right
#   one config
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
install torch==2.13.0
install transformers==5.23.0 compressed-tensors==0.17.1 psutil
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1
cat >"$folder/pack.py" <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
)
from safetensors.torch import load_file, save_file

here, name, widths = Path(sys.argv[1]), version("compressed-tensors"), range(3, 9)
compressor = BaseCompressor.get_value_from_registry("pack-quantized")
weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))


def scheme(bits):
    args = QuantizationArgs(num_bits=bits, type="int", symmetric=True, strategy="channel")
    return QuantizationScheme(targets=["Linear"], weights=args)


def step(bits):
    return weight.abs().amax(1, keepdim=True) * 2 / ((1 << bits) - 1)


def read(stored, bits):
    prefix = f"{bits}."
    parts = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
    found = compressor.decompress(parts, scheme(bits))["weight"]
    if found.shape != weight.shape:
        return f"{bits} wrong {list(found.shape)}"
    return f"{bits} {'right' if ((found - weight).abs() <= step(bits)).all() else 'wrong'}"


packed, configs = {}, []
for bits in widths:
    parts = {"weight": weight.clone(), "weight_scale": step(bits)}
    packed |= {f"{bits}.{k}": v for k, v in compressor.compress(parts, scheme(bits)).items()}
    said = {"format": "pack-quantized", "quantization_status": "compressed"}
    configs.append(QuantizationConfig(config_groups={"group_0": scheme(bits)}, **said).to_dict())
save_file(packed, here / f"{name}.safetensors")
(here / f"{name}.json").write_text(json.dumps(configs, sort_keys=True))
print(name, "words a row", {bits: packed[f"{bits}.weight_packed"].shape[1] for bits in widths})
for path in sorted(here.glob("*.safetensors")):
    stored = load_file(path)
    print(name, f"reads {path.stem}'s:", ", ".join(read(stored, bits) for bits in widths))
PYTHON
seen=""
for version in 0.17.1 0.18.0 0.17.1; do
  install --no-deps "compressed-tensors==$version"
  seen+=$("$folder/venv/bin/python" "$folder/pack.py" "$folder" 2>/dev/null)$'\n'
done
cmp --silent "$folder/0.17.1.json" "$folder/0.18.0.json" && seen+="one config"$'\n'
printf '%s' "$seen"
expected=$(sed -n '/^# Seen/,/^set/s/^#   //p' "$0")
[ "$seen" = "$expected"$'\n' ] || { echo "it behaves otherwise now" >&2; exit 1; }
