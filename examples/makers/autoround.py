"""AutoRound 0.16: its own format and those of other tools, on the CPU.

`python -P autoround.py VARIANT MODEL OUT --calib FILE --windows FILE [--fixture FILE LINEAR]`; the
last line that it prints is JSON. --fixture: also one linear as it stands on disk, beside what the
tool has in memory before it packs it.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).with_name("shared")))
from making import measure, parse_arguments, read_config, read_tokens, say, write_fixture


@dataclass(frozen=True)
class Variant:
    """A way to quantize and to write it. layers: pattern -> options of those layers alone."""

    format: str
    bits: int = 4
    sym: bool = True
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


EIGHT = {"model.layers.1.self_attn.q_proj": {"bits": 8}, "model.layers.1.mlp.up_proj": {"bits": 8}}
# auto_round:llm_compressor writes nothing for integers that llm_compressor does not.
VARIANTS: Mapping[str, Variant] = {
    "auto-awq": Variant("auto_awq"),
    "auto-awq-asym": Variant("auto_awq", sym=False),
    "auto-gptq": Variant("auto_gptq"),
    "auto-gptq-asym": Variant("auto_gptq", sym=False),
    "llm-compressor-asym": Variant("llm_compressor", sym=False),
    **{f"auto-round-{bits}": Variant("auto_round", bits) for bits in (2, 3, 4, 8)},
    "auto-round-4-asym": Variant("auto_round", sym=False),
    # At 5 to 7 bits symmetric ones are refused: "auto_gptq format support … but got bits=5".
    **{f"auto-round-{bits}-asym": Variant("auto_round", bits, sym=False) for bits in (3, 5)},
    "auto-round-6-awq": Variant("auto_round:auto_awq", 6, sym=False),
    "auto-round-dynamic": Variant("auto_round", layers=EIGHT),
    "auto-round-dynamic-asym": Variant("auto_round", sym=False, layers=EIGHT),
}


def prepare(given: argparse.Namespace, variant: Variant) -> Any:
    """The tool, with the model and all that it is asked for."""
    from auto_round import AutoRound
    from transformers import AutoModelForCausalLM, AutoTokenizer

    calib = read_tokens(given.calib)
    return AutoRound(
        AutoModelForCausalLM.from_pretrained(given.model),
        AutoTokenizer.from_pretrained(given.model),
        bits=variant.bits,
        group_size=given.group,
        sym=variant.sym,
        layer_config={name: dict(options) for name, options in variant.layers.items()},
        # Rows of tokens: a text goes through a hasher that fails on pyarrow 26.
        dataset=[row[None] for row in calib],
        nsamples=len(calib),
        seqlen=calib.shape[1],
        batch_size=4,
        iters=given.iters,
        device_map="cpu",
        enable_torch_compile=False,
    )


def main() -> None:
    """Quantize, measure, save."""
    # iters: steps of the search a block.
    given = parse_arguments(VARIANTS, group=128, iters=10)
    variant = VARIANTS[given.variant]
    # Layers that are to be saved are packed, and leave memory, block by block: what they are
    # rounded to is measured on another model, rounded with the same seed.
    rounded, _ = prepare(given, variant).quantize()
    nll = measure(rounded.float().eval(), read_tokens(given.windows))
    kept = None
    if given.fixture:
        kept = rounded.get_submodule(given.fixture[1]).weight.detach().float().clone()
    with tempfile.TemporaryDirectory(dir=given.out.parent) as folder:
        prepare(given, variant).quantize_and_save(folder, format=variant.format)
        written = next(Path(folder).rglob("config.json")).parent
        shutil.copytree(written, given.out)
    maker = f"auto-round {version('auto-round')}"
    if kept is not None:
        file, linear = given.fixture
        # Scales are rounded to float16 as they are written.
        about = {"method": read_config(given.out)["quant_method"], "tolerance": "1e-3"}
        write_fixture(file, given.out, linear, kept, maker=maker, **about)
    say(given, maker, variant.format, nll=nll, how="in memory before export")


if __name__ == "__main__":
    main()
