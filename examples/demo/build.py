"""Make the bundled demo model: `python -m examples.demo.build` (about 25 minutes on two cores).

The text is what every Python ships: the help topics of pydoc and the docstrings of the standard
library. One document in sixteen is held out by the hash of its text, never seen in training, and
becomes `valid.txt`; `calib.txt` is the start of the training text. The trained model then gets one
planted fault (see `plant_fault.py`), so that a first run has something real to find.
"""

import ast
import hashlib
import json
import math
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from examples.plant_fault import plant_fault
from examples.train_model import train_model, train_tokenizer

HERE = Path(__file__).parent
SKIPPED = {"site-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"}
VALID_CHARACTERS = 160_000
CALIB_CHARACTERS = 240_000
FAULT = {"block": 5, "condition": 600.0, "seed": 7}


def collect_documents() -> list[str]:
    """The help topics, then the docstrings of each standard-library module, one document each."""
    documents = [topics[name] for name in sorted(topics)]
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if SKIPPED & set(path.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        found = [ast.get_docstring(n) for n in ast.walk(tree) if isinstance(n, owners)]
        text = "\n\n".join(doc for doc in found if doc and len(doc) > 80)
        if text:
            documents.append(text)
    return documents


def is_held_out(document: str) -> bool:
    """Whether the hash of the text puts it among the sixteenth that is held out."""
    return hashlib.sha256(document.encode()).digest()[0] % 16 == 0


def measure_unigram(train: list[int], held_out: list[int]) -> float:
    """Perplexity of held-out tokens under add-one smoothed token frequencies of `train`."""
    counts = Counter(train)
    total = len(train) + max(*train, *held_out) + 1
    return math.exp(-sum(math.log((counts[t] + 1) / total) for t in held_out) / len(held_out))


@torch.no_grad()
def measure_model(folder: Path, held_out: list[int], seq_len: int) -> float:
    """Perplexity over non-overlapping windows, by transformers' own loss."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    count = len(held_out) // seq_len
    windows = torch.tensor(held_out[: count * seq_len]).view(count, seq_len)
    losses = [model(input_ids=w[None], labels=w[None]).loss.item() for w in windows]
    return math.exp(sum(losses) / count)


def build(out: Path, steps: int = 1500) -> dict:
    """Collect, train, plant, write everything to `out`; returns the figures it also saves."""
    documents = collect_documents()
    train = [d for d in documents if not is_held_out(d)]
    held_out = [d for d in documents if is_held_out(d)]
    # Short documents first would make a text of fragments; by hash they come in no order at all.
    held_out.sort(key=lambda d: hashlib.sha256(d.encode()).hexdigest())
    calib = sorted(train, key=lambda d: hashlib.sha256(d.encode()).hexdigest())
    valid_text = "\n\n".join(held_out)[:VALID_CHARACTERS]
    out.mkdir(parents=True, exist_ok=True)
    (out / "valid.txt").write_text(valid_text, encoding="utf-8")
    (out / "calib.txt").write_text("\n\n".join(calib)[:CALIB_CHARACTERS], encoding="utf-8")
    tokenizer: PreTrainedTokenizerFast = train_tokenizer(train, vocab_size=4096)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with tempfile.TemporaryDirectory() as healthy:
        loss = train_model(train, tokenizer, config, Path(healthy), steps=steps)
        held_out_tokens = tokenizer.encode(valid_text)
        ppl_healthy = measure_model(Path(healthy), held_out_tokens, 256)
        plant_fault(Path(healthy), out, **FAULT)
    figures = {
        "training_loss": loss,
        "ppl_unigram": measure_unigram(
            [t for d in train for t in tokenizer.encode(d)], held_out_tokens
        ),
        "ppl_before_fault": ppl_healthy,
        "ppl": measure_model(out, held_out_tokens, 256),
        "fault": FAULT,
        "steps": steps,
    }
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


if __name__ == "__main__":
    print(json.dumps(build(HERE), indent=2))
