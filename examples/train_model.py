"""Train a small causal language model on plain text, on a CPU, in minutes.

The demo model and the models that the benchmarks need are made by this one function, so that what
they show can be repeated from nothing but text.
"""

import math
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedTokenizerFast

from awqscope.mixedprec.files.atomic import share_files

END = "<|end|>"


def train_tokenizer(documents: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE over `documents`; encodes any text, adds no special token by itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)


def train_model(
    documents: list[str],
    tokenizer: PreTrainedTokenizerFast,
    config: PretrainedConfig,
    out: Path,
    *,
    steps: int,
    seq_len: int = 256,
    batch: int = 16,
    peak_rate: float = 2e-3,
    seed: int = 0,
) -> float:
    """Train a model of `config` on `documents`; save it, in float16, with its tokenizer to `out`.

    AdamW with warm-up and a cosine to zero; random windows of `seq_len` tokens; bfloat16 autocast,
    float32 weights. Returns the mean training loss (nats a token) of the last 50 steps.
    """
    torch.manual_seed(seed)
    stream: list[int] = []
    for document in documents:
        stream += [*tokenizer.encode(document), tokenizer.eos_token_id]
    tokens = torch.tensor(stream)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=peak_rate,
        betas=(0.9, 0.95),
    )
    warm_up = max(1, steps // 20)
    losses = []
    for step in range(steps):
        rate = min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = peak_rate * rate
        starts = torch.randint(len(tokens) - seq_len, (batch,)).tolist()
        windows = torch.stack([tokens[start : start + seq_len] for start in starts])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(input_ids=windows, labels=windows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % 50 == 49:
            print(f"step {step + 1}/{steps}: loss {sum(losses[-50:]) / 50:.3f}", flush=True)
    model.half().save_pretrained(out)
    share_files(out)
    tokenizer.save_pretrained(out)
    return sum(losses[-50:]) / len(losses[-50:])
