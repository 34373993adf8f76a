"""A run that has got as far as explaining needs, of a tiny model, made in a second."""

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.sweep.swappable import read_swappable
from awqscope.mixedprec.awq.choices import search_folder
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.recipes.recipe import make_recipe, save_recipe
from awqscope.mixedprec.scheme import FP16_BITS, Grouped, UnitWidths
from tests.help.runs import make_record

DONE = {"state": "done"}


def write_searched_run(
    path: Path, model_path: Path, text: Path, *, bits: int = 4, changed: UnitWidths = {}
) -> RunDirectory:
    """A run of `model_path` after search and sweep, with a recipe that changes some units."""
    model, run = open_model(str(model_path)), RunDirectory(path)
    spec = RunSpec(
        model=str(model_path), calib=str(text), valid=str(text), bits=bits, group_size=64
    )
    windows = cut_windows(load_corpus(str(text)), load_tokenizer(model_path), 64, 4)
    units = [kind.name for kind in model.family.units]
    source = {"hashes": model.hash(), "blocks": model.blocks, "units": units}
    source |= {"architecture": model.config.model_type, "parameters": 1, "dtype": "float16"}
    run.create(make_record(spec, source=source, stages={"search": DONE, "sweep": DONE}))
    search_model(model, windows, list(spec.schemes.values()), run.searches)
    for width, scheme in spec.schemes_at(changed.values()).items():
        if isinstance(width, Grouped):
            search_model(model, windows, [scheme], search_folder(run.searches, width))
    kind = "flagged" if changed else "uniform"
    recipe = make_recipe(spec.model, model.family, model.blocks, bits, changed=changed, kind=kind)
    save_recipe(path / "recipe.json", recipe)
    return run


@torch.no_grad()
def build_whole(model: SourceModel, searches: Path, bits: Mapping[str, int]) -> PreTrainedModel:
    """The naive way: transformers' own model with effective weights put in by hand. bits: of units;
    those without are the reference's."""
    whole = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32).eval()
    widths = tuple(sorted(set(bits.values()) - {FP16_BITS}))
    for number in range(model.blocks):
        swappable = read_swappable(model, number, searches, widths)
        chosen = {
            linear: bits[f"{number}.{kind.name}"]
            for kind in model.family.units
            for linear in kind.linears
            if f"{number}.{kind.name}" in bits
        }
        block = whole.get_submodule(model.prefix(number))
        for name, weight in swappable.weights(chosen).items():
            block.get_parameter(name).data = weight.clone()
    return whole
