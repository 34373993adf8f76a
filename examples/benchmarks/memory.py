"""Peak memory of a run against the model's size.

`python -m examples.benchmarks.memory [BLOCKS …]`; by default 6 and 24 blocks of a random model of
half a billion parameters (24 blocks, vocabulary 32,000), run end to end on a small fixed validation
set in a process that counts what it holds beyond importing torch. More blocks add streams, not
weights. The proof's process is counted apart: in it transformers loads the whole checkpoint, as a
user would.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from app.demo import find_demo
from examples.train_model import train_tokenizer

PROGRAM = """
import json, re, sys
from pathlib import Path
import torch

def held(name):
    status = Path("/proc/self/status").read_text()
    return int(re.search(name + r":\\s+(\\d+) kB", status).group(1)) * 1024

before = held("VmRSS")
from diagnose.pipeline import run_pipeline
from diagnose.spec import RunSpec
imported = held("VmRSS")
model, text, out = sys.argv[1:]
peaks = {}
def note(stage, done, total):
    peaks[stage] = held("VmHWM") - before
spec = RunSpec(model=model, calib=text, valid=text, seq_len=256, windows=2, calib_windows=4,
               calib_seq_len=256, verify_units=4, top_k=1)
run_pipeline(spec, Path(out), note)
children = __import__("resource").getrusage(__import__("resource").RUSAGE_CHILDREN).ru_maxrss * 1024
print(json.dumps({"peak": held("VmHWM") - before, "imports": imported - before, "stages": peaks,
                  "proof_process": children - before}))
"""


def make_model(blocks: int, folder: Path, text: str) -> int:
    """Save a random model in bfloat16 with its tokenizer; returns its bytes in float32."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=1280,
        intermediate_size=3456,
        num_hidden_layers=blocks,
        num_attention_heads=20,
        num_key_value_heads=20,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    model.save_pretrained(folder)
    train_tokenizer([text], 2000).save_pretrained(folder)
    return size


def main() -> None:
    """Print the peak as a share of the model, by stage, for each number of blocks."""
    counts = [int(argument) for argument in sys.argv[1:]] or [6, 24]
    text = find_demo() / "valid.txt"
    peaks = {}
    for blocks in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            size = make_model(blocks, folder / "model", text.read_text(encoding="utf-8"))
            command = [sys.executable, "-c", PROGRAM, folder / "model", text, folder / "run"]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found = json.loads(output.splitlines()[-1])
        peaks[blocks] = found["peak"]
        print(f"{blocks} blocks, {size / 4e6:.0f} M parameters, {size / 1e9:.2f} GB in float32:")
        print(f"  peak beyond importing torch: {found['peak'] / size:.1%} of the model")
        print(f"  of which importing the libraries: {found['imports'] / size:.1%}")
        by_stage = ", ".join(f"{s} {peak / size:.1%}" for s, peak in found["stages"].items())
        print(f"  highest so far after each stage: {by_stage}")
        print(f"  the proof's process, which holds all of it: {found['proof_process'] / size:.0%}")
    for blocks in counts[1:]:
        ratio = peaks[blocks] / peaks[counts[0]]
        print(f"{blocks} blocks / {counts[0]} blocks: {ratio:.2f}x the peak")


if __name__ == "__main__":
    main()
