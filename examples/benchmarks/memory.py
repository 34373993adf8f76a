"""A model of three times the memory budget under a hard cap: what a run of it holds, and whether
its numbers are those of a run with all the memory there is.

`python -m examples.benchmarks.memory [BUDGET [TIMES]]`; by default 1.375GiB and 3. A random model
whose 16-bit weights are TIMES the budget is run end to end in a fresh process, once with the budget
and once without limit. With the budget it runs, with its proof's process, in a cgroup that may hold
no byte more and no swap (see `cap.py`; where none can be made, that is said). Its peak counts what
processes hold once and pages of files too, so that a model that is read fills it: those the kernel
takes back. The highest resident memory of either process, shared libraries included, is set beside
the budget, by stage beside the plan. `--calibrate` sets plans beside measured peaks for a few
shapes of four blocks.

Only two blocks are searched, the first and the last; for the others it is given that nothing is
scaled and nothing clipped: the search takes the same memory for every block, and most of the time.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

from awqscope.app.demo import find_demo
from awqscope.diagnose.options.amounts import parse_bytes
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import AnyRecord
from awqscope.mixedprec.files.atomic import write_json
from examples.benchmarks.cap import Cap, NoCapError, open_cap
from examples.train_model import train_tokenizer

VOCABULARY = 2048
# Wide blocks: a unit costs a pass through all that are behind it, so that a deep model of the same
# bytes takes hours and holds no more at once.
CHANNELS, WIDE = 1536, 4096
LENGTH = 8
GIB = 2**30
UNLIMITED = 2**50
TABLES = ("blocks", "units", "linears", "weights", "promotions", "activations", "tokens")
# Shapes whose plans are set beside measured peaks: channels, widest, vocabulary, window.
SHAPES = ((512, 2048, 2048, 64), (1024, 4096, 2048, 512), (1536, 4096, 32000, 256))

PROGRAM = """
import json, sys
from functools import partial
from pathlib import Path
from awqscope.diagnose.stages.pipeline import prepare_run, run_pipeline
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.awq.choices import BlockSearch
from awqscope.mixedprec.awq.choices import save_search, search_path

options, out = json.loads(sys.argv[1]), Path(sys.argv[2])
spec, run = RunSpec(**options), RunDirectory(out)
run.create(prepare_run(spec).description)
blocks = run.read().source.blocks
for block in range(1, blocks - 1):
    for scheme in spec.schemes.values():
        path = search_path(run.searches, block, scheme.bits)
        save_search(path, BlockSearch(scheme, (), {}))
run_pipeline(spec, out, lambda *event: None)
"""


def make_model(
    folder: Path, blocks: int, channels: int, wide: int, vocabulary: int, text: str
) -> None:
    """Write a random llama in bfloat16, a block at a time, with its tokenizer."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=channels,
        intermediate_size=wide,
        num_hidden_layers=blocks,
        num_attention_heads=channels // 64,
        num_key_value_heads=channels // 64,
        max_position_embeddings=2048,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    )
    config.save_pretrained(folder)
    train_tokenizer([text], 2000).save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int, columns: int) -> torch.Tensor:
        return (0.02 * torch.randn(rows, columns, generator=generator)).bfloat16()

    ones = torch.ones(channels, dtype=torch.bfloat16)
    around = {
        "model.embed_tokens.weight": draw(vocabulary, channels),
        "lm_head.weight": draw(vocabulary, channels),
        "model.norm.weight": ones,
    }
    weight_map = dict.fromkeys(around, "around.safetensors")
    save_file(around, folder / "around.safetensors", metadata={"format": "pt"})
    shapes = {f"self_attn.{n}_proj": (channels, channels) for n in "qkvo"}
    shapes |= {f"mlp.{n}_proj": (wide, channels) for n in ("gate", "up")}
    shapes["mlp.down_proj"] = (channels, wide)
    for block in range(blocks):
        tensors = {f"{name}.weight": draw(*shape) for name, shape in shapes.items()}
        tensors |= {f"{n}_layernorm.weight": ones.clone() for n in ("input", "post_attention")}
        named = {f"model.layers.{block}.{name}": value for name, value in tensors.items()}
        file = f"block-{block:04d}.safetensors"
        save_file(named, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(named, file)
    index = {"metadata": {}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index)


def run_model(
    model: Path, text: Path, out: Path, budget: int, length: int, cap: Cap | None = None
) -> AnyRecord:
    """run.json of a run in a process of its own, below a cap if one is given."""
    options = {
        "model": str(model),
        "calib": str(text),
        "valid": str(text),
        "seq_len": length,
        "windows": 2,
        "calib_windows": 2,
        "calib_seq_len": length,
        "verify_units": 2,
        "top_k": 0,
        "max_memory": budget,
    }
    command = [sys.executable, "-c", PROGRAM, json.dumps(options), str(out)]
    subprocess.run(command if cap is None else cap.wrap(command), check=True)
    return RunDirectory(out).read()


def show_stages(record: AnyRecord) -> int:
    """Print each stage's measured peak beside the planned one; the highest of them."""
    highest = 0
    assert record.memory_plan is not None
    for planned in record.memory_plan.stages:
        found = record.stages[planned.stage]
        own = found.peak_bytes or 0
        peak = found.proof_process_peak_bytes or own
        highest = max(highest, peak, own)
        print(
            f"  {planned.stage:10}  planned {planned.peak_bytes / GIB:5.2f} GiB  "
            f"measured {peak / GIB:5.2f} GiB  in files {planned.spilled_bytes / GIB:5.2f} GiB  "
            f"planned {planned.seconds:6.0f} s  took {found.seconds:6.0f} s",
            flush=True,
        )
    return highest


def check_equal(one: Path, other: Path) -> None:
    """Assert that two runs found the same, to the last bit."""
    ours, theirs = RunDirectory(one), RunDirectory(other)
    assert ours.read().headline == theirs.read().headline
    for table in TABLES:
        assert ours.read_table(table).equals(theirs.read_table(table)), table
    proofs = [json.loads((run.path / "proof.json").read_text()) for run in (ours, theirs)]
    loaded = [proof.pop("loaded") for proof in proofs]
    assert proofs[0] == proofs[1]
    print(f"  every table and proof.json are equal; the proof loaded it {' and '.join(loaded)}")


def calibrate(text: Path) -> None:
    """Plans beside measured peaks for each of SHAPES."""
    for channels, wide, vocabulary, length in SHAPES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_model(folder / "model", 4, channels, wide, vocabulary, text.read_text())
            record = run_model(folder / "model", text, folder / "run", UNLIMITED, length)
            print(f"{channels} channels, {wide} wide, {vocabulary} tokens, windows of {length}:")
            show_stages(record)


def main() -> None:
    """Run the model of three times the budget, and the same without limit."""
    text = find_demo() / "valid.txt"
    if "--calibrate" in sys.argv:
        calibrate(text)
        return
    budget = parse_bytes(sys.argv[1] if len(sys.argv) > 1 else "1.375GiB")
    times = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
    block = 2 * (4 * CHANNELS * CHANNELS + 3 * CHANNELS * WIDE)
    blocks = -(-int(times * budget - 4 * VOCABULARY * CHANNELS) // block)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = (blocks, CHANNELS, WIDE, VOCABULARY)
        make_model(folder / "model", *shape, text.read_text(encoding="utf-8"))
        size = sum(p.stat().st_size for p in (folder / "model").glob("*.safetensors"))
        print(f"{blocks} blocks, {size / GIB:.2f} GiB in 16 bits; a budget of {budget / GIB:.2f}:")
        began = time.monotonic()
        with contextlib.ExitStack() as stack:
            try:
                cap = stack.enter_context(open_cap(budget))
            except NoCapError as error:
                cap = None
                print(f"  not capped: {error}")
            tight = run_model(folder / "model", text, folder / "tight", budget, LENGTH, cap)
            if cap is not None:
                print(
                    f"  the cap of {budget / GIB:.2f} GiB held: {cap.peak() / GIB:.2f} GiB at most "
                    f"with pages of files, which were taken back {cap.times_full()} times"
                )
        peak = show_stages(tight)
        verdict = "within" if peak <= budget else "ABOVE"
        print(
            f"  peak {peak / GIB:.2f} GiB, {verdict} the budget; model / budget {size / budget:.2f}"
        )
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
        free = run_model(folder / "model", text, folder / "free", UNLIMITED, LENGTH)
        print("without limit:")
        show_stages(free)
        check_equal(folder / "tight", folder / "free")
        if peak > budget:
            sys.exit("the budget was not held")


if __name__ == "__main__":
    main()
