"""Every family that autoawq's stock flow does not run as it is: searched, swept, written and loaded
again, on a tiny random model each. Those that it runs are in tests/mixedprec/awq/test_losses.py and
tests/mixedprec/checkpoints/test_writer.py."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.statistics.likelihood import prepare_reference, score
from awqscope.diagnose.sweep.branches import CONTROL, UNIFORM, Sweep, block_branches
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.mixedprec.awq.arithmetic import Quantized
from awqscope.mixedprec.awq.autoawq import (
    AWQ_CAUSAL_LM_MODEL_MAP,
    MendedQuantizer,
    quantize_with_autoawq,
    read_scale_groups,
)
from awqscope.mixedprec.awq.choices import load_search, search_path
from awqscope.mixedprec.awq.realise import scale_block
from awqscope.mixedprec.awq.scale_groups import find_scale_groups
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.checkpoints.reader import open_checkpoint
from awqscope.mixedprec.checkpoints.writer import realise_block, write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.family import ExpertLayout
from awqscope.mixedprec.families.refused import REFUSED
from awqscope.mixedprec.families.table import FAMILIES, find_family, fit_family
from awqscope.mixedprec.models.forward import get_linear
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.recipes.recipe import make_recipe
from awqscope.mixedprec.scheme import FP16_BITS, Scheme
from tests.help import tiny
from tests.mixedprec.checkpoints.test_writer import mixed_recipe, simulate

MakeModel = Callable[..., Path]
Searched = tuple[SourceModel, Path, Tensor]

SCHEMES = {4: Scheme(4, 64, False), 8: Scheme(8, 64, True)}
OTHERS = [family for family in tiny.FAMILIES if family not in tiny.STOCK]
# Falcon's other two designs: that of 7B, with one key and value head, and that of RW.
VARIANTS = {
    "falcon, one norm": {
        "new_decoder_architecture": False,
        "parallel_attn": True,
        "multi_query": True,
    },
    "falcon, sequential": {
        "new_decoder_architecture": False,
        "parallel_attn": False,
        "multi_query": False,
        "num_kv_heads": 4,
        "alibi": True,
        "bias": True,
    },
    "gpt_bigcode, a head each": {"multi_query": False},
    "opt, gelu": {"activation_function": "gelu"},
}


@pytest.fixture(scope="module", params=[*OTHERS, *VARIANTS])
def searched(
    request: pytest.FixtureRequest,
    make_model: MakeModel,
    text_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Searched:
    """A model of a family with its searches at 4 and 8 bits, and windows to run it on."""
    family = request.param.partition(",")[0]
    path = make_model(family, **VARIANTS.get(request.param, {}))
    model = open_model(str(path))
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(path), 48, 6)
    folder = tmp_path_factory.mktemp("awq")
    search_model(model, windows, list(SCHEMES.values()), folder)
    return model, folder, windows


@torch.no_grad()
def test_scaling_alone_changes_nothing(searched: Searched) -> None:
    model, folder, windows = searched
    scaled, reference = model.read_whole(), model.read_whole()
    expected = reference(windows, use_cache=False).logits
    blocks = scaled.get_submodule(model.family.blocks)
    for number in range(model.blocks):
        choices = load_search(search_path(folder, number, 4)).scales
        assert any(choice.ratio > 0 for choice in choices)
        blocks[number] = scale_block(blocks[number], choices)
    got = scaled(windows, use_cache=False).logits
    assert torch.allclose(got, expected, atol=1e-3 * expected.std().item())


@torch.no_grad()
def test_sweep_controls(searched: Searched) -> None:
    """A block swapped with itself is exactly the reference; the uniform model is the naive one."""
    model, folder, windows = searched
    branches = block_branches(model, 4, frozenset())
    scores = run_sweep(model, windows, Sweep(4, (4, 8), frozenset(), folder, branches))
    assert float(scores[CONTROL].kl.abs().max()) == 0.0
    assert all(float(scores[b.name].kl.mean()) > 0 for b in branches if b.name != CONTROL)
    uniform = make_recipe("", model.family, model.blocks, 4)
    reference = make_recipe("", model.family, model.blocks, FP16_BITS)
    expected, naive = (
        simulate(model, recipe, folder, windows)[:, :-1] for recipe in (reference, uniform)
    )
    kl = score(prepare_reference(expected), naive, windows[:, 1:])[1]
    torch.testing.assert_close(scores[UNIFORM].kl, kl, rtol=1e-2, atol=1e-5)


def stacked_weight(loaded: nn.Module, name: str, layout: ExpertLayout) -> Tensor | None:
    """The weight of an expert's linear in a model as transformers holds it; None for any other."""
    found = re.fullmatch(rf"(.+)\.{layout.module}\.experts\.(\d+)\.(\w+)", name)
    if found is None:
        return None
    experts = loaded.get_submodule(f"{found[1]}.{layout.attribute}.experts")
    if found[3] == layout.down:
        return experts.down_proj[int(found[2])].float()
    halves = experts.gate_up_proj[int(found[2])].float().chunk(2)
    return halves[(layout.gate, layout.up).index(found[3])]


def test_transformers_loads_what_was_simulated(searched: Searched, tmp_path: Path) -> None:
    model, folder, windows = searched
    recipe = mixed_recipe(model)
    if model.family.experts is not None:
        recipe = make_recipe("", model.family, model.blocks, 4, changed={"0.o": 16, "1.qkv": 8})
    write_checkpoint(tmp_path / "out", model, recipe, folder, SCHEMES)
    if model.family.loads_packed:
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
        with torch.no_grad():
            logits = loaded(windows, use_cache=False).logits
        reference = make_recipe("", model.family, model.blocks, FP16_BITS)
        simulated = simulate(model, recipe, folder, windows)
        damage = (simulated - simulate(model, reference, folder, windows)).abs().mean()
        # transformers rounds unpacked experts to float16 as it stacks them; else nothing differs.
        stacked = model.family.experts is not None
        assert (logits - simulated).abs().mean() < (0.02 if stacked else 1e-3) * damage
    else:
        with pytest.raises(AttributeError, match="has no attribute 'weight'"):
            AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
        loaded = None
    stored, widths = open_checkpoint(tmp_path / "out"), recipe.linear_widths()
    for number in range(model.blocks):
        realised = realise_block(model, recipe, folder, number, model.dtype)
        for name, linear in realised.linears.items():
            full = f"{model.prefix(number)}.{name}"
            on_disk, served = stored.linear(full), linear.served()
            if isinstance(on_disk, Quantized):
                assert on_disk.scheme == model.family.kind_of(name).scheme(SCHEMES[widths[full]])
                on_disk = on_disk.dequantize()
            else:
                assert widths[full] == FP16_BITS and on_disk is not None
            assert torch.equal(on_disk.float(), served)
            if loaded is None:
                continue
            layout = model.family.experts
            stacked = layout and stacked_weight(loaded, full, layout)
            if stacked is None:
                assert torch.equal(get_linear(loaded, full).weight.float(), served)
            else:
                # transformers stacks experts in the 16-bit type that they are served in.
                assert torch.equal(stacked, served.half().float())


@pytest.mark.parametrize("family", ["opt", "gptj", "falcon", "mixtral", "qwen3_moe"])
def test_chooses_as_stock_where_stock_can_be_made_to_run(
    family: str, make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    """Stock asks every model for rotary embeddings, and for experts that are linears."""
    path = make_model(family)
    model = open_model(str(path))
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(path), 48, 6)
    scheme = Scheme(4, 64, symmetric=model.family.experts is not None)
    search_model(model, windows, [scheme], tmp_path)
    whole = model.read_whole()
    if family == "opt":
        whole.model.rotary_emb = lambda *args: None
    elif family in ("gptj", "falcon"):
        whole.model = SimpleNamespace(rotary_emb=lambda *args: None)
    stock = quantize_with_autoawq(whole, family, windows, scheme, MendedQuantizer)
    for number, theirs in enumerate(stock):
        ours = load_search(search_path(tmp_path, number, 4))
        found = {choice.group.linears: choice.scales for choice in ours.scales}
        # Scales that only an activation function could take have no place in a checkpoint.
        expected = [choice for choice in theirs.scales if choice.group.linears != ("mlp.fc_out",)]
        assert [choice.group.linears for choice in expected] == list(found)
        for choice in expected:
            assert torch.allclose(choice.scales, found[choice.group.linears], rtol=1e-4)
        # Stock takes "block_sparse_moe" for a key projection by its "k_", and clips no expert.
        clipped = {name for name in ours.clips if "block_sparse_moe" not in name}
        assert clipped == set(theirs.clips)
        for name, clip in theirs.clips.items():
            if name == "mlp.fc_out":
                continue
            close = ((clip - ours.clips[name]).abs() <= 1e-4 * clip.abs()).float().mean()
            # Of two clips that lose the same, last digits decide, and processors differ in those.
            assert close >= 0.99, name


@pytest.mark.parametrize(
    ("family", "relative"),
    [
        ("smollm3", "llama"),
        ("granite", "llama"),
        ("seed_oss", "llama"),
        ("gemma3_text", "gemma2"),
        ("cohere2", "cohere"),
        ("mixtral", "mixtral"),
        ("qwen3_moe", "qwen3_moe"),
    ],
)
def test_tables_say_what_autoawq_says_of_relatives(
    family: str, relative: str, make_model: MakeModel
) -> None:
    model = open_model(str(make_model(family)))
    groups = find_scale_groups(model.family, family, model.block_shell(0))
    theirs = read_scale_groups(relative, model.block_shell(0))
    known = {(g.previous, g.linears, g.inspect, g.mixes_tokens) for g in theirs}
    assert {(g.previous, g.linears, g.inspect, g.mixes_tokens) for g in groups} == known


def test_blocks_that_norm_their_outputs_are_scaled_inside_only(make_model: MakeModel) -> None:
    for family in ("olmo", "olmo2", "exaone4"):
        model = open_model(str(make_model(family)))
        groups = find_scale_groups(model.family, family, model.block_shell(0))
        assert {g.previous for g in groups} == {"self_attn.v_proj", "mlp.up_proj"}


def test_scales_pass_a_relu_only(make_model: MakeModel) -> None:
    for activation, last in (("relu", "fc1"), ("gelu", "final_layer_norm")):
        model = open_model(str(make_model("opt", activation_function=activation)))
        groups = find_scale_groups(model.family, "opt", model.block_shell(0))
        assert groups[-1].previous == last


def test_every_name_of_autoawqs_is_known_or_refused_with_a_reason() -> None:
    named = set(AWQ_CAUSAL_LM_MODEL_MAP)
    assert named <= set(FAMILIES) | set(REFUSED)
    assert not set(FAMILIES) & set(REFUSED)
    for model_type in sorted(named - set(FAMILIES)):
        with pytest.raises(InputError, match=f"a model of type {model_type} "):
            find_family(model_type)
    with pytest.raises(InputError, match="'gpt2' is not supported"):
        find_family("gpt2")


@pytest.mark.parametrize(
    ("family", "settings", "said"),
    [
        ("opt", {"do_layer_norm_before": False}, "norms after its linears"),
        ("opt", {"word_embed_proj_dim": 64}, "projects its embeddings"),
        ("mpt", {"attn_config": {"clip_qkv": 6.0}}, "clamps its queries"),
        ("olmo", {"clip_qkv": 8.0}, "clamps its queries"),
        ("olmoe", {"clip_qkv": 8.0}, "clamps its queries"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "comes out of its norms"),
        ("stablelm", {"use_parallel_residual": True}, "parallel residuals"),
    ],
)
def test_settings_that_cannot_be_handled_are_refused(
    family: str, settings: dict[str, object], said: str
) -> None:
    config = tiny.tiny_config(family, **settings)
    with pytest.raises(InputError, match=f"^models/x .*{said}"):
        fit_family(FAMILIES[family], config, "models/x")
    fit_family(FAMILIES[family], tiny.tiny_config(family), "models/x")
