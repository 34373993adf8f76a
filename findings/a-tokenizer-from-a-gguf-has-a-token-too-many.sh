#!/usr/bin/env bash
# The tokenizer that transformers builds from a GGUF file (`gguf_file=`) with a byte-pair vocabulary, Llama 3's
# kind, has one token more than the file lists, if the file lists no `<|endoftext|>`: that is added behind
# the last one, so its id is the vocabulary's size, and the model of the same file has no row for it. It is
# no special token by the tokenizer's own account. A text with `<|endoftext|>` in it, which many corpora
# hold between documents, is not spelt out in letters as the original tokenizer does, but ends in an
# IndexError of the embedding (on a GPU: a device-side assertion).
#
# Versions: transformers 5.23.0, gguf 0.19.0, torch 2.13.0 (CPU), Python 3.11, Linux.
# Seen: listed 259, model 259 rows, tokenizer 260: {'<|endoftext|>': 259}; special [257, 258]; forward IndexError
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
from pathlib import Path

import gguf
import numpy
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

here, name, width = Path(sys.argv[1]), "tiny.gguf", 64
# GPT-2's letters for the 256 bytes, a merged pair, and Llama 3's two markers.
shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
letters = [chr(byte) for byte in shown] + [chr(256 + i) for i in range(256 - len(shown))]
tokens = [*letters, "he", "<|begin_of_text|>", "<|end_of_text|>"]
writer = gguf.GGUFWriter(here / name, "llama")
writer.add_context_length(64)
writer.add_embedding_length(width)
writer.add_feed_forward_length(width)
writer.add_block_count(1)
writer.add_head_count(2)
writer.add_head_count_kv(2)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_dimension_count(width // 2)
writer.add_vocab_size(len(tokens))
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("llama-bpe")
writer.add_token_list(tokens)
writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
writer.add_token_merges(["h e"])
writer.add_bos_token_id(len(tokens) - 2)
writer.add_eos_token_id(len(tokens) - 1)
square = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
shapes = {f"blk.0.{kind}": (width, width) for kind in square}
shapes |= {"token_embd": (len(tokens), width), "output": (len(tokens), width)}
shapes |= dict.fromkeys(["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"], (width,))
for tensor, shape in shapes.items():
    writer.add_tensor(f"{tensor}.weight", numpy.ones(shape, dtype=numpy.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

tokenizer = AutoTokenizer.from_pretrained(here, gguf_file=name)
model = AutoModelForCausalLM.from_pretrained(here, gguf_file=name, dtype=torch.float32)
more = {token: i for token, i in tokenizer.get_vocab().items() if i >= len(tokens)}
try:
    model(**tokenizer("he<|endoftext|>he", return_tensors="pt"))
    forward = "done"
except Exception as error:
    forward = type(error).__name__
print(
    f"listed {len(tokens)}, model {model.get_input_embeddings().num_embeddings} rows, "
    f"tokenizer {len(tokenizer)}: {more}; special {tokenizer.all_special_ids}; forward {forward}"
)
PYTHON
seen=$("$folder/venv/bin/python" "$folder/read.py" "$folder" 2>/dev/null)
echo "$seen"
[ "$seen" = "listed 259, model 259 rows, tokenizer 260: {'<|endoftext|>': 259}; special [257, 258]; forward IndexError" ] ||
  { echo "it behaves otherwise now" >&2; exit 1; }
