"""Checkpoints whose units are in groups of several sizes: as the compressed-tensors library unpacks
them, as transformers holds them, and as the servers' rules read them."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import dequantize
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.inputs.sizes import model_bytes
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.awq.arithmetic import Quantized
from awqscope.mixedprec.awq.choices import search_folder
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.checkpoints.reader import checkpoint_bytes, open_checkpoint
from awqscope.mixedprec.checkpoints.serving import LOADS
from awqscope.mixedprec.checkpoints.writer import Written, realise_block, write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.recipes.recipe import Recipe, make_recipe
from awqscope.mixedprec.scheme import FP16_BITS, Grouped, Scheme, Width

SPEC = RunSpec(model="tiny", calib="", valid="", group_size=64)
FINE, FINE_8 = Grouped(4, 32), Grouped(8, 32)
CHANGED: dict[str, Width] = {
    "0.qkv": FINE,
    "0.down": FP16_BITS,
    "1.gate_up": 8,
    "1.o": FINE,
    "1.down": FINE_8,
}


@dataclass(frozen=True)
class Made:
    """A model's checkpoint, and what it was written from."""

    model: SourceModel
    recipe: Recipe
    searches: Path
    windows: torch.Tensor
    folder: Path
    written: Written


@pytest.fixture(scope="module")
def made(
    make_model: Callable[..., Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    path, folder = make_model("llama"), tmp_path_factory.mktemp("grouped")
    model, searches = open_model(str(path)), folder / "awq"
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(path), 64, 4)
    recipe = make_recipe("tiny", model.family, model.blocks, 4, changed=CHANGED)
    for width, scheme in SPEC.schemes_at([4, 8, FINE, FINE_8]).items():
        search_model(model, windows, [scheme], search_folder(searches, width))
    schemes = SPEC.schemes_at(recipe.widths.values())
    written = write_checkpoint(folder / "out", model, recipe, searches, schemes)
    return Made(model, recipe, searches, windows, folder / "out", written)


def unpack_by_library(tensors: dict[str, torch.Tensor], name: str, scheme: Scheme) -> torch.Tensor:
    """A packed linear's weight by the functions of compressed-tensors alone."""
    packed, scale = tensors[f"{name}.weight_packed"], tensors[f"{name}.weight_scale"]
    shape = torch.Size(tensors[f"{name}.weight_shape"].tolist())
    codes = unpack_from_int32(packed, scheme.bits, shape)
    zeros = None
    if not scheme.symmetric:
        rows = torch.Size((shape[0], scale.shape[1]))
        stored = tensors[f"{name}.weight_zero_point"]
        zeros = unpack_from_int32(stored, scheme.bits, rows, packed_dim=0)
    arguments = QuantizationArgs(
        num_bits=scheme.bits,
        symmetric=scheme.symmetric,
        strategy="group",
        group_size=scheme.group_size,
    )
    return dequantize(codes, scale.float(), zeros, arguments)


def test_the_library_unpacks_what_was_simulated(made: Made) -> None:
    tensors = load_file(made.folder / "model.safetensors")
    loaded = AutoModelForCausalLM.from_pretrained(made.folder, dtype=torch.float32).eval()
    with torch.no_grad():
        # It unpacks at the first forward.
        loaded(made.windows, use_cache=False)
    stored, widths = open_checkpoint(made.folder), made.recipe.linear_widths()
    seen = set()
    for number in range(made.model.blocks):
        realised = realise_block(made.model, made.recipe, made.searches, number, made.model.dtype)
        for name, linear in realised.linears.items():
            full = f"{made.model.prefix(number)}.{name}"
            width, on_disk = widths[full], stored.linear(full)
            seen.add(width)
            if width != FP16_BITS:
                scheme = SPEC.schemes_at([width])[width]
                by_library = unpack_by_library(tensors, full, scheme)
                assert torch.equal(by_library, linear.served()), full
                assert isinstance(on_disk, Quantized) and on_disk.scheme == scheme
                on_disk = on_disk.dequantize()
            assert isinstance(on_disk, torch.Tensor)
            assert torch.equal(on_disk.float(), linear.served())
            assert torch.equal(loaded.get_submodule(full).weight.float(), linear.served()), full
    assert seen == {4, 8, FP16_BITS, FINE, FINE_8}


def test_every_size_of_groups_is_a_config_group_of_its_own(made: Made) -> None:
    config = json.loads((made.folder / "config.json").read_text())["quantization_config"]
    schemes = [
        (group["weights"]["num_bits"], group["weights"]["group_size"])
        for group in config["config_groups"].values()
    ]
    assert schemes == [(4, 64), (4, 32), (8, 64), (8, 32)]
    lists = [g["targets"] for g in config["config_groups"].values()] + [config["ignore"]]
    fused = {"model.layers.0.self_attn.qkv_proj", "model.layers.1.mlp.gate_up_proj"}
    for name in set(made.recipe.linear_widths()) | fused:
        found = [any(re.fullmatch(t.removeprefix("re:"), name) for t in each) for each in lists]
        assert sum(found) == 1, name
    serving = made.written.serving
    assert not serving.faults
    assert {serving.outcome(consumer) for consumer in serving.consumers} == {LOADS}


def test_scales_and_zero_points_of_each_size_are_counted(made: Made) -> None:
    predicted, _ = model_bytes(made.model, SPEC, CHANGED)
    assert predicted == made.written.bytes == checkpoint_bytes(made.folder)
    plain, _ = model_bytes(made.model, SPEC, {**CHANGED, "0.qkv": 4})
    # Twice as many groups: of each a scale of two bytes, and half a byte of zero points.
    linears = (128 + 2 * 64) * 128
    assert predicted - plain == linears // 64 * 5 // 2


def test_what_no_format_or_run_holds(made: Made, tmp_path: Path) -> None:
    schemes = SPEC.schemes_at(made.recipe.widths.values())
    fine = make_recipe("tiny", made.model.family, made.model.blocks, 4, changed={"0.o": FINE})
    with pytest.raises(InputError, match="groups of one size, the recipe asks 4, 4x32"):
        write_checkpoint(tmp_path / "out", made.model, fine, made.searches, schemes, fmt="awq")
    with pytest.raises(InputError, match="no search at 3 bits: use the widths 4, 8 and 16"):
        SPEC.schemes_at([Grouped(3, 64)])
    missing = make_recipe("", made.model.family, 2, 4, changed={"0.o": Grouped(4, 128)})
    with pytest.raises(InputError, match="missing or damaged"):
        write_checkpoint(
            tmp_path / "out",
            made.model,
            missing,
            made.searches,
            SPEC.schemes_at([4, Grouped(4, 128)]),
        )
    assert not list(tmp_path.iterdir())
