"""Checkpoints whose linears were fused against the same unfused, and what autoawq and transformers
make of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from awq.modules.fused.block import LlamaLikeBlock
from awq.modules.fused.model import LlamaLikeModel
from awq.modules.fused.norm import FasterTransformerRMSNorm
from awq.modules.linear import WQLinear_GEMM
from awq.utils.fused_utils import fuse_qkv
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.runs.spec import CompareSpec
from awqscope.diagnose.stages.comparison import run_comparison
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.checkpoints.matching import served_layers
from awqscope.mixedprec.checkpoints.serving import LOADS, TRANSFORMERS, WRONG
from awqscope.mixedprec.checkpoints.writer import examine_serving, write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import EXPERTS, list_units
from awqscope.mixedprec.foreign.candidate import Candidate, open_candidate
from awqscope.mixedprec.foreign.dequantize import write_plain
from awqscope.mixedprec.foreign.differences import differing_places
from awqscope.mixedprec.foreign.opening import open_alone
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.recipes.recipe import make_recipe
from awqscope.mixedprec.scheme import Scheme

MakeModel = Callable[..., Path]
SCHEMES = {4: Scheme(4, 64, False), 8: Scheme(8, 64, True)}
FILE = "model.safetensors"
# What a server saves of a model on its only device.
RANKED = "model-rank-0-part-0.safetensors"


@pytest.fixture(scope="module")
def made(
    make_model: MakeModel, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[SourceModel, Path]]:
    """A llama with grouped heads, and a checkpoint of it in a format, with a unit of fused linears
    at 8 bits in compressed-tensors."""
    model, folder = open_model(str(make_model("llama"))), tmp_path_factory.mktemp("fused")
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(model.path), 64, 2)
    search_model(model, windows, list(SCHEMES.values()), folder / "searches")

    def write(fmt: str) -> tuple[SourceModel, Path]:
        out = folder / fmt
        changed = {} if fmt == "awq" else {"1.gate_up": 8}
        if not out.exists():
            recipe = make_recipe("", model.family, model.blocks, 4, changed=changed)
            write_checkpoint(out, model, recipe, folder / "searches", SCHEMES, fmt=fmt)
        return model, out

    return write


def fuse(model: SourceModel, source: Path, out: Path, *, along: int = 0, file: str = FILE) -> Path:
    """A copy of a checkpoint whose linears are concatenated as a server holds them. along: the
    dimension of outputs in its matrices."""
    shutil.copytree(source, out)
    tensors = load_file(out / FILE)
    for layer in served_layers(model.family, model.blocks):
        parts = layer.parts if len(layer.parts) > 1 and layer.kind != EXPERTS else ()
        suffixes = [n.removeprefix(f"{parts[0]}.") for n in tensors if parts and parts[0] in n]
        for suffix in suffixes:
            values = [tensors.pop(f"{part}.{suffix}") for part in parts]
            whole = torch.cat(values, along if values[0].ndim > 1 else 0)
            if suffix == "weight_shape":
                whole = torch.stack([sum(value[0] for value in values), values[0][1]])
            tensors[f"{layer.name}.{suffix}"] = whole.contiguous()
    (out / FILE).unlink()
    save_file(tensors, out / file, metadata={"format": "pt"})
    return out


def assert_same(ours: Candidate, theirs: SourceModel) -> None:
    """Every parameter of every block, to the last bit."""
    for number in range(theirs.blocks):
        expected = dict(theirs.read_block(number).named_parameters())
        found = dict(ours.read_block(number).named_parameters())
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert torch.equal(found[name], values), name


@pytest.mark.parametrize("family", ["llama", "qwen2", "mixtral"])
def test_plain_weights_are_cut_into_the_linears(
    family: str, make_model: MakeModel, tmp_path: Path
) -> None:
    """Fewer heads of keys than of queries, biases, and attention beside experts; with the scales of
    a cache that vLLM 0.32 keeps beside them."""
    model = open_model(str(make_model(family)))
    out = fuse(model, model.path, tmp_path / "out", file=RANKED)
    names = load_file(out / RANKED)
    scales = {f"{model.prefix(0)}.self_attn.attn._{x}_scale": torch.ones(()) for x in "kqv"}
    save_file(names | scales, out / RANKED)
    candidate = open_candidate(str(out), model)
    assert "model.layers.1.self_attn.qkv_proj.weight" in names
    assert "model.layers.1.self_attn.q_proj.weight" not in names
    assert_same(candidate, model)
    assert differing_places(model, candidate) == ()
    plain = open_candidate(str(model.path), model)
    for unit in list_units(model.family, model.blocks):
        for linear in unit.linears if unit.kind.name != EXPERTS else ():
            full = f"{model.prefix(unit.block)}.{linear}"
            assert candidate.linear_bytes(full) == plain.linear_bytes(full)
    served = examine_serving(candidate.catalogue, candidate)
    assert served.outcome(TRANSFORMERS) == WRONG
    assert plain.fused == () and "model.layers.1.self_attn.qkv_proj" in candidate.fused
    written = tmp_path / "plain"
    write_plain(written, open_alone(str(out)), "float16", lambda written: "a card")
    assert_same(open_candidate(str(written), model), model)
    assert examine_serving(plain.catalogue, plain).outcome(TRANSFORMERS) == LOADS


def test_check_says_what_a_server_has_fused(make_model: MakeModel, tmp_path: Path) -> None:
    model = open_model(str(make_model("llama")))
    out = fuse(model, model.path, tmp_path / "out")
    result = CliRunner().invoke(app, ["check", str(out)])
    assert result.exit_code == 2
    assert "holds model.layers.0.self_attn.qkv_proj as a server has fused it" in result.stderr
    assert f"awqscope dequantize {out} --out ./plain writes them" in result.stderr


def test_transformers_fills_what_is_fused_with_random_values(
    make_model: MakeModel, tmp_path: Path
) -> None:
    model = open_model(str(make_model("llama")))
    path = fuse(model, model.path, tmp_path / "out")
    _, told = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    assert "model.layers.0.self_attn.k_proj.weight" in told["missing_keys"]


@pytest.mark.parametrize(("fmt", "along"), [("compressed-tensors", 0), ("awq", 1)])
def test_packed_weights_are_unpacked_whole_and_cut(
    fmt: str, along: int, made: Callable[[str], tuple[SourceModel, Path]], tmp_path: Path
) -> None:
    """The groups of config.json name the linears, which the server has fused since."""
    model, path = made(fmt)
    plain = open_candidate(str(path), model)
    candidate = open_candidate(str(fuse(model, path, tmp_path / "out", along=along)), model)
    assert set(candidate.codings) != set(plain.codings)
    assert_same(candidate, plain)
    assert candidate.count_widths() == plain.count_widths()
    stored = load_file(tmp_path / "out" / FILE)
    parts = [linear for kind in model.family.units[:1] for linear in kind.linears]
    sizes = [candidate.linear_bytes(f"{model.prefix(1)}.{linear}") for linear in parts]
    whole = f"{model.prefix(1)}.self_attn.qkv_proj."
    assert sum(sizes) == sum(t.nbytes for n, t in stored.items() if n.startswith(whole))
    assert sizes[0] > sizes[1] == sizes[2]


def test_what_autoawq_has_fused_is_read(
    made: Callable[[str], tuple[SourceModel, Path]], tmp_path: Path
) -> None:
    """Its own modules, put together as its LlamaFuser does, and saved as `save_quantized` does."""
    model, path = made("awq")
    plain = open_candidate(str(path), model)
    tensors, config = load_file(path / FILE), model.config

    def linear(name: str) -> WQLinear_GEMM:
        parts = {p: tensors[f"{name}.{p}"] for p in ("qweight", "qzeros", "scales")}
        rows, columns = parts["scales"].shape[1], parts["qweight"].shape[0]
        made = WQLinear_GEMM(4, 64, columns, rows, False, "cpu")
        made.load_state_dict(parts, strict=False)
        return made

    def norm(name: str) -> FasterTransformerRMSNorm:
        return FasterTransformerRMSNorm(nn.Parameter(tensors[f"{name}.weight"]))

    blocks = []
    for number in range(model.blocks):
        prefix = model.prefix(number)
        qkv, mlp = (
            nn.ModuleDict({name: linear(f"{prefix}.{module}.{name}") for name in names})
            for module, names in (
                ("self_attn", ("q_proj", "k_proj", "v_proj")),
                ("mlp", ("gate_proj", "up_proj", "down_proj")),
            )
        )
        block = LlamaLikeBlock(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            fuse_qkv(qkv, *qkv.values()),
            linear(f"{prefix}.self_attn.o_proj"),
            mlp,
            norm(f"{prefix}.input_layernorm"),
            norm(f"{prefix}.post_attention_layernorm"),
            "cpu",
            64,
        )
        blocks.append(block)
    embedding = nn.Embedding.from_pretrained(tensors["model.embed_tokens.weight"])
    whole = nn.Module()
    whole.model = LlamaLikeModel(config.vocab_size, blocks, embedding, norm("model.norm"))
    whole.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
    whole.lm_head.weight = nn.Parameter(tensors["lm_head.weight"])
    out = tmp_path / "out"
    shutil.copytree(path, out)
    state = {name: values.contiguous() for name, values in whole.state_dict().items()}
    assert "model.blocks.1.attn.qkv_proj.qweight" in state
    save_file(state, out / FILE, metadata={"format": "pt"})
    candidate = open_candidate(str(out), model)
    assert_same(candidate, plain)
    assert differing_places(plain, candidate) == ()


def test_a_comparison_finds_the_same_numbers(
    made: Callable[[str], tuple[SourceModel, Path]], text_file: Path, tmp_path: Path
) -> None:
    model, path = made("compressed-tensors")
    found = []
    for number, candidate in enumerate((path, fuse(model, path, tmp_path / "fused"))):
        spec = CompareSpec(
            reference=str(model.path),
            candidate=str(candidate),
            valid=str(text_file),
            seq_len=64,
            windows=3,
        )
        run = run_comparison(spec, tmp_path / str(number), lambda *event: None)
        units = [(row["unit"], row["bits"]) for row in run.read_table("units").to_pylist()]
        found.append((run.read().measured.kl, run.read_table("blocks").to_pylist(), units))
    assert found[0] == found[1]
    assert found[0][0].candidate > 0


def change(path: Path, edit: Callable[[dict[str, Tensor]], None], file: str = FILE) -> None:
    tensors = load_file(path / FILE)
    edit(tensors)
    (path / FILE).unlink()
    save_file(tensors, path / file, metadata={"format": "pt"})


def test_what_cannot_be_taken_apart_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    model = open_model(str(make_model("llama")))

    def attempt(name: str, edit: Callable[[dict[str, Tensor]], None]) -> str:
        path = fuse(model, model.path, tmp_path / name)
        change(path, edit)
        with pytest.raises(InputError) as caught:
            open_candidate(str(path), model)
        return str(caught.value)

    fused = "model.layers.0.self_attn.qkv_proj.weight"

    def halve(tensors: dict[str, Tensor]) -> None:
        tensors[fused] = tensors[fused][:128].clone()

    def narrow(tensors: dict[str, Tensor]) -> None:
        tensors[fused] = tensors[fused][:, :64].clone()

    def double(tensors: dict[str, Tensor]) -> None:
        tensors["model.layers.0.self_attn.q_proj.weight"] = tensors[fused][:128].clone()

    def stack(tensors: dict[str, Tensor]) -> None:
        tensors["model.layers.0.mlp.experts.w13_weight"] = torch.zeros(2, 4, 4)

    assert f"{fused} has shape [128, 128], where the 3 linears" in attempt("halved", halve)
    assert "q_proj.weight has shape [128, 64]" in attempt("narrowed", narrow)
    assert "has no tensor model.layers.0.self_attn.k_proj" in attempt("doubled", double)
    assert "as a server has stacked them" in attempt("stacked", stack)


def test_what_a_server_has_repacked_is_refused(
    made: Callable[[str], tuple[SourceModel, Path]], tmp_path: Path
) -> None:
    """vLLM 0.32 on the CPU: words along the outputs, and scales turned."""
    model, path = made("compressed-tensors")
    path = fuse(model, path, tmp_path / "out")

    def repack(tensors: dict[str, Tensor]) -> None:
        for name, values in tensors.items():
            if name.endswith((".weight_packed", ".weight_scale")):
                tensors[name] = values.T.contiguous()

    change(path, repack, RANKED)
    with pytest.raises(InputError, match="repacks weights for its kernels: compare"):
        open_candidate(str(path), model)


def test_a_model_split_between_devices_is_refused(make_model: MakeModel, tmp_path: Path) -> None:
    model = open_model(str(make_model("llama")))
    path = fuse(model, model.path, tmp_path / "out", file=RANKED)
    shutil.copy(path / RANKED, path / "model-rank-1-part-0.safetensors")
    with pytest.raises(InputError, match="has split between devices"):
        open_candidate(str(path), model)


def test_parts_of_one_device_are_read_together(make_model: MakeModel, tmp_path: Path) -> None:
    model = open_model(str(make_model("llama")))
    path = fuse(model, model.path, tmp_path / "out", file=RANKED)
    tensors = load_file(path / RANKED)
    moved = {name: tensors.pop(name) for name in list(tensors)[::2]}
    save_file(tensors, path / RANKED)
    save_file(moved, path / "model-rank-0-part-1.safetensors")
    assert_same(open_candidate(str(path), model), model)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config
