"""Is a planted fault found and repaired, and is nothing flagged without it?

`python -m examples.benchmarks.repair [VALID.txt TEST.txt]`: first the bundled llama; then, when the
two parts of WikiText-2 (or any two texts) are given, a qwen2 trained on the first and measured on
the second, with the fault planted in another block. Each model is run with and without its fault.
"""

import sys
import tempfile
from pathlib import Path

from transformers import Qwen2Config

from awqscope.app.demo import demo_spec, find_demo
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.pipeline import run_pipeline
from examples.demo.build import FAULT
from examples.plant_fault import plant_fault
from examples.train_model import train_model, train_tokenizer

QWEN2_FAULT = {"block": 2, "condition": 600.0, "seed": 11}


def report(name: str, spec: RunSpec, folder: Path) -> None:
    """Run `spec` and print what was found, repaired, and at what size."""
    run = run_pipeline(spec, folder, lambda *event: None)
    record = run.read_searched()
    headline, estimator = record.measured, record.estimator
    assert estimator is not None and headline.bytes.mixed is not None
    rows = [row for row in run.read_table("blocks").to_pylist() if row["view"] == "isolated"]
    top = max(rows, key=lambda row: row["kl"])
    print(f"{name}: PPL {headline.ppl}, KL {headline.kl}")
    print(f"  top block {top['block']} ({top['reason']}); flagged {headline.flagged}")
    size = headline.bytes.mixed / headline.bytes.uniform - 1
    print(
        f"  recovered {headline.recovered:.1%} (predicted {headline.predicted_recovered:.1%})"
        f" of the lost KL for {size:+.2%} bytes; proof passed: {headline.proved}"
    )
    for row in run.read_table("promotions").to_pylist():
        if row["chosen"]:
            print(f"  {', '.join(row['units'])} give back {row['given_back']:.1%}")
    print(
        f"  additivity {headline.additivity:.3f}; Spearman {estimator.spearman:.3f} over "
        f"{estimator.verified_units} units",
        flush=True,
    )


def run_bundled(folder: Path) -> None:
    """The bundled model with its fault, and with the fault lifted."""
    report("llama, fault in block 5", demo_spec(0), folder / "faulted")
    plant_fault(find_demo(), folder / "model", **FAULT, lift=True)
    spec = demo_spec(0).change(model=str(folder / "model"))
    report("llama, fault lifted", spec, folder / "healthy")


def run_qwen2(folder: Path, train: Path, test: Path, steps: int) -> None:
    """A qwen2 trained on `train`, without and with a fault in another block."""
    text = train.read_text(encoding="utf-8")
    tokenizer = train_tokenizer([text], 4096)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    train_model([text], tokenizer, config, folder / "healthy", steps=steps)
    plant_fault(folder / "healthy", folder / "faulted", **QWEN2_FAULT)
    for name, kind in (("fault in block 2", "faulted"), ("without a fault", "healthy")):
        spec = RunSpec(
            model=str(folder / kind),
            calib=str(train),
            valid=str(test),
            seq_len=256,
            windows=40,
            calib_windows=24,
        )
        report(f"qwen2, {name}", spec, folder / f"run-{kind}")


def main() -> None:
    """Run whichever models there are texts for."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_bundled(folder / "llama")
        if len(sys.argv) == 3:
            run_qwen2(folder / "qwen2", Path(sys.argv[1]), Path(sys.argv[2]), steps=220)
        else:
            print("qwen2: left out; give two texts, such as WikiText-2's valid and test")


if __name__ == "__main__":
    main()
