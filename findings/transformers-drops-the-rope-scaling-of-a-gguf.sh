#!/usr/bin/env bash
# transformers reads a GGUF file of a llama (`gguf_file=`) with plain rope, whatever scaling the file states:
# neither the keys `llama.rope.scaling.*` (linear, yarn) nor the tensor `rope_freqs.weight`, which holds the
# factors of Llama 3.1 and later, reach the model. Nothing is said of it: no warning, and the report of keys
# is clean. Short prompts come out almost right, so the loss shows as a model that is a little worse than its
# packing explains, or as one that fails on long texts. Who reads such a file has to set rope_parameters.
#
# Versions: transformers 5.23.0, gguf 0.19.0, torch 2.13.0 (CPU), Python 3.11, Linux. The files are float32,
# written here from a model of one block, so that nothing but rope can differ.
# Seen, of the largest difference between logits:
#   llama3: rope default, as the model it was written from False, as that with plain rope True, said nothing
#   linear: rope default, as the model it was written from False, as that with plain rope True, said nothing
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
install torch==2.13.0
install transformers==5.23.0 gguf==0.19.0 accelerate
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1
cat >"$folder/read.py" <<'PYTHON'
import sys
import warnings
from pathlib import Path

import gguf
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, logging

HEADS, WIDTH, TOKENS, LENGTH, FACTOR, THETA = 4, 128, 64, 256, 8.0, 10000.0
SIZES = {"vocab_size": TOKENS, "hidden_size": WIDTH, "intermediate_size": WIDTH}
SIZES |= {"num_hidden_layers": 1, "num_attention_heads": HEADS, "max_position_embeddings": LENGTH}
PLAIN = {"rope_type": "default", "rope_theta": THETA}
LINEAR = {"rope_type": "linear", "rope_theta": THETA, "factor": FACTOR}
LLAMA3 = {"rope_type": "llama3", "rope_theta": THETA, "factor": FACTOR, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.0.self_attn.q_proj": "blk.0.attn_q",
    "model.layers.0.self_attn.k_proj": "blk.0.attn_k",
    "model.layers.0.self_attn.v_proj": "blk.0.attn_v",
    "model.layers.0.self_attn.o_proj": "blk.0.attn_output",
    "model.layers.0.mlp.gate_proj": "blk.0.ffn_gate",
    "model.layers.0.mlp.up_proj": "blk.0.ffn_up",
    "model.layers.0.mlp.down_proj": "blk.0.ffn_down",
    "model.layers.0.input_layernorm": "blk.0.attn_norm",
    "model.layers.0.post_attention_layernorm": "blk.0.ffn_norm",
}
said = []


class Heard:
    """Keeps what the library says beside its progress bars."""

    def write(self, text):
        said.append(text)

    def flush(self):
        pass


def build(rope):
    return LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=rope)).eval()


def write(model, path, rope):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(LENGTH)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_block_count(1)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(THETA)
    writer.add_vocab_size(TOKENS)
    if rope is LINEAR:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(FACTOR)
    else:
        size = WIDTH // HEADS
        plain = THETA ** (-torch.arange(0, size, 2) / size)
        writer.add_tensor("rope_freqs.weight", (plain / model.model.rotary_emb.inv_freq).numpy())
    for name, values in model.state_dict().items():
        name = NAMES[name.removesuffix(".weight")]
        if name.endswith(("attn_q", "attn_k")):
            # The two halves of a head's rows take turns in a GGUF file.
            values = values.reshape(HEADS, 2, -1, WIDTH).transpose(1, 2).reshape(WIDTH, WIDTH)
        writer.add_tensor(f"{name}.weight", values.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@torch.no_grad()
def equal(one, other):
    tokens = torch.arange(LENGTH)[None] % TOKENS
    return bool((one(tokens).logits - other(tokens).logits).abs().max() < 1e-3)


logging.disable_progress_bar()
warnings.showwarning = lambda message, *rest: said.append(str(message))
here = Path(sys.argv[1])
torch.manual_seed(0)
for kind, rope in (("llama3", LLAMA3), ("linear", LINEAR)):
    model, plain = build(rope), build(PLAIN)
    for values in model.parameters():
        if values.ndim == 2:
            torch.nn.init.normal_(values, std=0.2)
    plain.load_state_dict(model.state_dict())
    write(model, here / f"{kind}.gguf", rope)
    said.clear()
    errors, sys.stderr = sys.stderr, Heard()
    loaded, report = AutoModelForCausalLM.from_pretrained(
        here, gguf_file=f"{kind}.gguf", dtype=torch.float32, output_loading_info=True
    )
    sys.stderr = errors
    words = [each for each in said if each.strip() and "Converting" not in each]
    held = loaded.config.rope_parameters["rope_type"]
    print(
        f"{kind}: rope {held}, as the model it was written from {equal(loaded, model)}, "
        f"as that with plain rope {equal(loaded, plain)}, "
        f"said {words if words or any(report.values()) else 'nothing'}"
    )
PYTHON
seen=$("$folder/venv/bin/python" "$folder/read.py" "$folder" 2>/dev/null)
echo "$seen"
[ "$(grep -c "rope default, as the model it was written from False, as that with plain rope True, said nothing" <<<"$seen")" = 2 ] ||
  { echo "it behaves otherwise now" >&2; exit 1; }
