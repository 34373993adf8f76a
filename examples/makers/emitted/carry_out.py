"""A recipe as `awqscope recipe --emit` writes it, carried out by the tool that it is for.

`python -P carry_out.py TARGET TEXT MODEL OUT --calib FILE`, in an environment that has the tool. It
reads TEXT as the emitter says that it is to be read, writes the checkpoint to OUT, and prints the
tool's name and version as its last line.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

# Steps of AutoRound's search a block: its default of 200 takes an hour on two cores.
STEPS = 50


def load_float(model: Path) -> nn.Module:
    """The model in float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


def run_gptqmodel(text: Path, model: Path, out: Path, windows: Tensor) -> str:
    """QuantizeConfig(**TEXT), and GPTQ by it."""
    # Its pool of threads has half as many as there are cores, and it asks for two of them.
    os.cpu_count = lambda: 4
    # It compiles every kernel that it loads.
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(**json.loads(text.read_text(encoding="utf-8")), device="cpu")
    loaded = GPTQModel.load(str(model), config)
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in windows]
    loaded.quantize(rows, batch_size=1)
    loaded.save(str(out))
    return f"gptqmodel {version('gptqmodel')}"


def run_autoround(text: Path, model: Path, out: Path, windows: Tensor) -> str:
    """AutoRound(model, tokenizer, **TEXT), in its own format."""
    from auto_round import AutoRound
    from transformers import AutoModelForCausalLM, AutoTokenizer

    arguments: dict[str, Any] = json.loads(text.read_text(encoding="utf-8"))
    arguments.pop("awqscope")
    rounding = AutoRound(
        AutoModelForCausalLM.from_pretrained(model),
        AutoTokenizer.from_pretrained(model),
        # Rows of tokens: a text goes through a hasher that fails on pyarrow 26.
        dataset=[row[None] for row in windows],
        nsamples=len(windows),
        seqlen=windows.shape[1],
        batch_size=4,
        iters=STEPS,
        device_map="cpu",
        enable_torch_compile=False,
        **arguments,
    )
    # It writes a folder inside the one that it is given.
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        rounding.quantize_and_save(folder, format="auto_round")
        shutil.copytree(next(Path(folder).rglob("config.json")).parent, out)
    return f"auto-round {version('auto-round')}, {STEPS} steps a block"


def run_modelopt(text: Path, model: Path, out: Path, windows: Tensor) -> str:
    """mtq.quantize(model, TEXT, forward_loop), exported for servers."""
    import modelopt.torch.quantization as mtq
    import yaml
    from modelopt.torch.export import export_hf_checkpoint

    def calibrate(held: nn.Module) -> None:
        with torch.no_grad():
            for window in windows:
                held(window[None])

    config = yaml.safe_load(text.read_text(encoding="utf-8"))
    export_hf_checkpoint(mtq.quantize(load_float(model), config, calibrate), export_dir=out)
    return f"nvidia-modelopt {version('nvidia-modelopt')}"


def run_llm_compressor(text: Path, model: Path, out: Path, windows: Tensor) -> str:
    """oneshot(model, recipe=TEXT), saved compressed."""
    from llmcompressor import oneshot
    from llmcompressor.pipelines.cache import IntermediatesCache
    from torch.utils.data import DataLoader

    if not torch.cuda.is_available():
        # It pins pages for an accelerator even where there is none.
        IntermediatesCache._pin_intermediate = staticmethod(lambda value: None)
    loaded = load_float(model)
    # A loader of its own: its way through datasets' hashing fails with newer pyarrow.
    batches = DataLoader([{"input_ids": window} for window in windows], batch_size=1)
    oneshot(model=loaded, recipe=str(text), dataset=batches)
    loaded.save_pretrained(out, save_compressed=True)
    return f"llm-compressor {version('llmcompressor')}"


def run_mlx_lm(text: Path, model: Path, out: Path, windows: Tensor) -> str:
    """convert(model, quant_predicate=…) by TEXT; nothing is calibrated."""
    from mlx_lm.convert import convert

    layers: dict[str, Any] = json.loads(text.read_text(encoding="utf-8"))["quantization"]
    convert(
        str(model),
        str(out),
        quantize=True,
        q_group_size=layers["group_size"],
        q_bits=layers["bits"],
        quant_predicate=lambda path, module: layers.get(path, False),
    )
    return f"mlx-lm {version('mlx-lm')}"


TARGETS: Mapping[str, Callable[[Path, Path, Path, Tensor], str]] = {
    "gptqmodel": run_gptqmodel,
    "autoround": run_autoround,
    "modelopt": run_modelopt,
    "llm-compressor": run_llm_compressor,
    "mlx-lm": run_mlx_lm,
}


def main() -> None:
    """Quantize by the text, save."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("text", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--calib", type=Path, required=True)
    given = parser.parse_args()
    windows = load_file(given.calib)["tokens"]
    print(TARGETS[given.target](given.text, given.model, given.out, windows), flush=True)


if __name__ == "__main__":
    main()
