"""The type that a model is served in: which it is, that what is simulated is what is stored in it,
and that nothing is stored that it cannot hold."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from awqscope.diagnose.explain.greedy import quantize_whole
from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.inputs.load import load_inputs
from awqscope.diagnose.proof.prove import final_streams
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.statistics.likelihood import prepare_reference, score
from awqscope.diagnose.sweep.branches import (
    REFERENCE,
    UNIFORM,
    Sweep,
    block_branches,
    count_streams,
)
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.diagnose.sweep.scoring import score_streams
from awqscope.diagnose.trials.race import measure_recipes
from awqscope.diagnose.trials.variants import Variant, run_variants
from awqscope.mixedprec.awq.choices import load_searches
from awqscope.mixedprec.awq.realise import realise
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.checkpoints.writer import write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.served import check_range, read_dtype, read_ends, served_outside
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import in_memory
from awqscope.mixedprec.recipes.recipe import Recipe, make_recipe
from awqscope.mixedprec.scheme import Scheme

MakeModel = Callable[..., Path]
SCHEMES = {4: Scheme(4, 64, False), 8: Scheme(8, 64, True)}


def change_model(
    source: Path,
    out: Path,
    change: Callable[[str, Tensor], Tensor],
    config: Mapping[str, object] = {},
) -> Path:
    """A copy of a model with other tensors and other entries of config.json; None takes one out."""
    shutil.copytree(source, out)
    file = out / "model.safetensors"
    tensors = {name: change(name, values) for name, values in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    said = {**json.loads((out / "config.json").read_text()), **config}
    (out / "config.json").write_text(json.dumps({k: v for k, v in said.items() if v is not None}))
    return out


def widen(part: str, low: torch.dtype) -> Callable[[str, Tensor], Tensor]:
    """Store tensors with `part` in their names in float32, with bits that `low` does not hold, and
    the others in `low`."""

    def change(name: str, values: Tensor) -> Tensor:
        wide = values.float()
        return wide * (1 + 1 / 700) if part in name else wide.to(low)

    return change


@pytest.mark.parametrize(
    ("said", "wide", "low", "expected"),
    [
        ("bfloat16", "embed", torch.bfloat16, torch.bfloat16),
        ("bfloat16", "proj", torch.bfloat16, torch.bfloat16),
        ("float16", "embed", torch.bfloat16, torch.float16),
        (None, "embed", torch.bfloat16, torch.bfloat16),
        (None, "norm", torch.float16, torch.float16),
        ("float32", "embed", torch.bfloat16, torch.bfloat16),
        ("float32", "", torch.float16, torch.float16),
        # Of the blocks' linears more are float32 than not: that is no type to serve in.
        (None, "mlp", torch.bfloat16, torch.float16),
        (None, "k_proj", torch.bfloat16, torch.bfloat16),
    ],
)
def test_the_type_is_the_configs_then_that_of_most_linears(
    said: str | None,
    wide: str,
    low: torch.dtype,
    expected: torch.dtype,
    make_model: MakeModel,
    tmp_path: Path,
) -> None:
    config = {"dtype": said, "torch_dtype": None}
    path = change_model(make_model("llama"), tmp_path / "model", widen(wide, low), config)
    assert open_model(str(path)).dtype == expected
    for asked in (torch.float16, torch.bfloat16):
        name = str(asked).removeprefix("torch.")
        assert open_model(str(path), dtype=name).dtype == asked


def test_a_nested_configs_type_counts() -> None:
    inner = SimpleNamespace(dtype=torch.bfloat16)
    outer = SimpleNamespace(dtype=None, get_text_config=lambda: inner)
    assert read_dtype(outer) == torch.bfloat16
    both = SimpleNamespace(dtype=torch.float16, get_text_config=lambda: inner)
    assert read_dtype(both) == torch.float16


def test_another_type_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(InputError, match=r"float8 is no type to serve in.*float16 or bfloat16"):
        open_model(str(make_model("llama")), dtype="float8")


class Case:
    """A searched model that stores some tensors in float32, its checkpoint with nothing promoted
    but a unit kept at 16 bits, and what transformers makes of it."""

    def __init__(self, path: Path, text: Path, folder: Path):
        self.model: SourceModel = open_model(str(path))
        self.windows = cut_windows(load_corpus(str(text)), load_tokenizer(path), 48, 3)
        self.searches = folder / "awq"
        search_model(self.model, self.windows, list(SCHEMES.values()), self.searches)
        kept = next(kind.name for kind in self.model.family.units if kind.name in ("o", "qkv"))
        self.kept = frozenset({f"1.{kept}"})
        self.recipe: Recipe = make_recipe(
            "", self.model.family, self.model.blocks, 4, changed=dict.fromkeys(self.kept, 16)
        )
        out = folder / "checkpoint"
        write_checkpoint(out, self.model, self.recipe, self.searches, SCHEMES)
        reference, loaded = (self._load(each) for each in (path, out))
        with torch.no_grad():
            self.reference = prepare_reference(self._logits(reference))
            self.nll, self.kl, _ = self.score(self._logits(loaded))

    @staticmethod
    def _load(path: Path) -> torch.nn.Module:
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    def _logits(self, model: torch.nn.Module) -> Tensor:
        return model(self.windows, use_cache=False).logits[:, :-1]

    def score(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return score(self.reference, logits, self.windows[:, 1:])

    def sweep(self) -> Sweep:
        branches = block_branches(self.model, 4, self.kept)
        outside = served_outside(self.model)
        return Sweep(4, (4, 8), self.kept, self.searches, branches, outside)


@pytest.fixture(scope="module", params=["llama norm", "llama embed", "gpt_neox ", "qwen2 bias"])
def case(
    request: pytest.FixtureRequest,
    make_model: MakeModel,
    text_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:
    """In bfloat16 with a part in float32: norms, embedding and head, everything, biases."""
    family, _, part = request.param.partition(" ")
    folder = tmp_path_factory.mktemp("served")
    change = widen(part, torch.bfloat16)
    path = change_model(make_model(family), folder / "model", change, {"dtype": "bfloat16"})
    return Case(path, text_file, folder)


@torch.no_grad()
def test_what_is_simulated_is_what_transformers_loads(case: Case) -> None:
    """Float32's roundings are all that differs: rounding to bfloat16 costs a hundred times more."""
    found = run_sweep(case.model, case.windows, case.sweep())
    assert (found[UNIFORM].nll - case.nll).abs().max() < 2e-5
    assert (found[UNIFORM].kl - case.kl).abs().max() < 1e-5
    assert float(found[UNIFORM].nll.mean().exp()) == pytest.approx(
        float(case.nll.mean().exp()), rel=1e-6
    )
    # The reference stays as it is stored, in float32 where it is, and so does the control.
    assert (found[REFERENCE].nll - case.score(case.reference.logits)[0]).abs().max() < 2e-5
    assert not found["control"].kl.any()


@torch.no_grad()
def test_every_way_of_simulating_gives_the_same_to_the_last_bit(case: Case) -> None:
    """Sweep, race and proof: one function, so that with nothing promoted mixed is uniform."""
    model, windows, recipe = case.model, case.windows, case.recipe
    expected = run_sweep(model, windows, case.sweep())[UNIFORM]
    raced = measure_recipes(model, windows, case.searches, {"it": recipe})["it"]
    assert torch.equal(raced.kl, expected.kl)
    reference, mixed = final_streams(model, windows, recipe, case.searches, in_memory())
    heads = read_ends(model).heads
    proved = score_streams(
        heads[False],
        windows,
        {REFERENCE: reference, "mixed": mixed},
        model.config.vocab_size,
        heads={"mixed": heads[True]},
    )["mixed"]
    assert torch.equal(proved.kl, expected.kl)
    assert torch.equal(proved.nll, expected.nll)


@torch.no_grad()
def test_explanations_hold_the_same_model(case: Case) -> None:
    ends = read_ends(case.model)
    text = tuple(case.windows[0].tolist())
    variants = [Variant(text, case.recipe.bits, True), Variant(text, {}, False)]
    stored, own = run_variants(case.model, ends, variants, case.searches)
    nll, _, _ = score(
        prepare_reference(ends.heads[False](own)[0, :-1]),
        ends.heads[True](stored)[0, :-1],
        case.windows[0, 1:],
    )
    assert (nll - case.nll[0]).abs().max() < 2e-5
    whole = case.model.read_whole()
    quantize_whole(case.model, whole, case.recipe.bits, case.searches)
    held = whole(case.windows, use_cache=False).logits[:, :-1]
    assert (case.score(held)[0] - case.nll).abs().max() < 2e-5


def test_a_model_in_its_own_type_costs_nothing_more(
    make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    model = open_model(str(make_model("llama")))
    assert served_outside(model) is None
    ends = read_ends(model)
    assert ends.entrances[True] is ends.entrances[False]
    assert ends.heads[True] is ends.heads[False]
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(model.path), 48, 2)
    search_model(model, windows, [SCHEMES[4]], tmp_path)
    linears = [linear for kind in model.family.units for linear in kind.linears]
    searches = load_searches(tmp_path, 0, (4,))
    realised = realise(model.read_block(0), searches, dict.fromkeys(linears, 4), model.dtype)
    assert set(realised.effective()) == {f"{linear}.weight" for linear in linears}
    sweep = Sweep(4, (4, 8), frozenset(), tmp_path, block_branches(model, 4, frozenset()))
    assert count_streams(model, sweep) == 3 * 2 + 1 + 2 - 3


def raise_one(part: str, value: float) -> Callable[[str, Tensor], Tensor]:
    """Everything in float32, with one value of the tensors with `part` in their names."""

    def change(name: str, values: Tensor) -> Tensor:
        wide = values.float().clone()
        if part in name:
            wide.view(-1)[3] = value
        return wide

    return change


@pytest.mark.parametrize("part", ["model.norm", "embed_tokens", "0.mlp.up_proj", "1.input_layer"])
def test_what_float16_cannot_hold_is_refused_before_anything_is_measured(
    part: str, make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    source = make_model("llama", tie_word_embeddings=False)
    path = change_model(source, tmp_path / "model", raise_one(part, -70_000.0), {"dtype": None})
    spec = RunSpec(
        model=str(path),
        calib=str(text_file),
        valid=str(text_file),
        group_size=64,
        seq_len=48,
        windows=2,
    )
    message = (
        rf"tensor \S*{part}\S* in model.safetensors holds values \(up to 70,000\) above 65,504"
    )
    with pytest.raises(InputError, match=message) as refused:
        load_inputs(spec)
    assert refused.value.remedy.startswith("give --dtype bfloat16")
    # The remedy leads on.
    inputs = load_inputs(RunSpec(**{**spec.to_json(), "keep_fp16": (), "dtype": "bfloat16"}))
    assert inputs.model.dtype == torch.bfloat16
    check_range(inputs.model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_masks_that_old_checkpoints_keep_are_no_weights(
    dtype: torch.dtype, make_model: MakeModel, tmp_path: Path
) -> None:
    """Those of GPT-NeoX and GPT-J: what is not attended to, and a number below all that float16
    holds."""
    path = change_model(
        make_model("gpt_neox"), tmp_path / "model", lambda name, v: v.to(dtype), {"dtype": None}
    )
    file = path / "model.safetensors"
    tensors = load_file(file)
    for block in range(2):
        attention = f"gpt_neox.layers.{block}.attention"
        tensors[f"{attention}.bias"] = torch.ones(1, 1, 16, 16).tril().bool()
        tensors[f"{attention}.masked_bias"] = torch.tensor(-1e9)
    save_file(tensors, file, metadata={"format": "pt"})
    model = open_model(str(path))
    assert model.dtype == torch.float16
    check_range(model)


@pytest.mark.parametrize("name", ["q_proj.weight", "q_proj.bias", "input_layernorm.weight"])
@pytest.mark.parametrize("width", [4, 16])
def test_what_a_block_stores_is_held_against_the_range(
    name: str, width: int, make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    """Codes times scales, biases, norms and kept weights, with AWQ's scales in them."""
    model = open_model(str(make_model("qwen2")))
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(model.path), 48, 2)
    search_model(model, windows, [SCHEMES[4]], tmp_path)
    searches = load_searches(tmp_path, 0, (4,))
    linears = [linear for kind in model.family.units for linear in kind.linears]
    full = name if name.startswith("input") else f"self_attn.{name}"
    block = model.read_block(0)
    block.get_parameter(full).data.view(-1)[0] = 3e7
    widths = dict.fromkeys(linears, width)
    with pytest.raises(InputError, match=rf"{full} holds values .*above 65,504"):
        realise(block, searches, widths, torch.float16)
    stored = realise(block, searches, widths, torch.bfloat16)
    served = [linear.served() for linear in stored.linears.values()]
    assert all(values.isfinite().all() for values in (*stored.others.values(), *served))


def test_gemm_refuses_what_only_bfloat16_holds(
    make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    """autoawq's format stores float16 whatever the model's type is."""
    source = make_model("llama", dtype=torch.bfloat16, tie_word_embeddings=False)

    def change(name: str, values: Tensor) -> Tensor:
        return raise_one("model.norm", 80_000.0)(name, values).bfloat16()

    path = change_model(source, tmp_path / "model", change)
    model = open_model(str(path))
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(path), 48, 2)
    search_model(model, windows, [SCHEMES[4]], tmp_path / "awq")
    recipe = make_recipe("", model.family, model.blocks, 4)
    with pytest.raises(InputError, match=r"model\.norm\.weight .*above 65,504"):
        write_checkpoint(
            tmp_path / "out", model, recipe, tmp_path / "awq", {4: SCHEMES[4]}, fmt="awq"
        )
    assert not (tmp_path / "out").exists()
    write_checkpoint(tmp_path / "out", model, recipe, tmp_path / "awq", {4: SCHEMES[4]})
