"""The study against transformers' own forward with hooks, on planted outliers, and stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from awqscope.diagnose.inputs.load import load_inputs
from awqscope.diagnose.statistics.likelihood import prepare_reference, score
from awqscope.diagnose.studies.int8_inputs import measure
from awqscope.diagnose.studies.int8_inputs.answer import (
    INT8,
    LLM_INT8,
    METHODS,
    SMOOTHQUANT,
    Activations,
)
from awqscope.diagnose.studies.int8_inputs.asked import ask, read_known
from awqscope.diagnose.studies.int8_inputs.measure import measure_activations
from awqscope.diagnose.studies.study import studies_of
from awqscope.diagnose.trials.finished import OpenedRun, open_run
from awqscope.mixedprec.errors import InputError
from tests.help.measured import copy_changed, write_measured_run

BLOCKS = 6
GUILTY, CHANNEL, FACTOR = 2, 7, 100.0
MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def even(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random llama whose blocks add little to what the embedding gives, each about as much."""

    def enlarge(model: Any) -> None:
        model.model.embed_tokens.weight *= 16

    source, out = make_model("llama", num_hidden_layers=BLOCKS), tmp_path_factory.mktemp("even")
    return copy_changed(source, out, enlarge)


@pytest.fixture(scope="module")
def opened(even: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> OpenedRun:
    out = tmp_path_factory.mktemp("runs") / "clean"
    return open_run(write_measured_run(out, even, text_file, keep_fp16=("3.down",)), None)


@pytest.fixture(scope="module")
def answer(opened: OpenedRun) -> Activations:
    return measure_activations(opened, METHODS)


@torch.no_grad()
def naive_kl(opened: OpenedRun, rounded: set[int]) -> Tensor:
    """KL by window of transformers' model with weights and inputs of these blocks at int8, but for
    the unit that the run keeps."""
    windows = load_inputs(opened.spec, opened.model).windows
    whole = AutoModelForCausalLM.from_pretrained(opened.model.path, dtype=torch.float32).eval()
    expected = whole(windows, use_cache=False).logits[:, :-1]

    def hook(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        steps = args[0].abs().amax(-1, keepdim=True) / 127
        return (torch.round(args[0] / steps) * steps,)

    for number in rounded:
        for name, linear in whole.model.layers[number].named_modules():
            if isinstance(linear, nn.Linear) and (number, name) != (3, "mlp.down_proj"):
                steps = linear.weight.abs().amax(1, keepdim=True) / 127
                linear.weight.data = torch.round(linear.weight / steps) * steps
                linear.register_forward_pre_hook(hook)
    logits = whole(windows, use_cache=False).logits[:, :-1]
    return score(prepare_reference(expected), logits, windows[:, 1:])[1].double().mean()


def test_every_view_is_transformers_with_hooks(opened: OpenedRun, answer: Activations) -> None:
    found = answer.find(INT8)
    assert found is not None
    for block in (0, 3, BLOCKS - 1):
        views = {
            "isolated": {block},
            "cumulative": set(range(block + 1)),
            "restored": set(range(BLOCKS)) - {block},
        }
        for view, rounded in views.items():
            damage = getattr(found.blocks[block], view)
            expected = float(naive_kl(opened, rounded))
            assert damage.kl[0] == pytest.approx(expected, rel=0.02), (view, block)
            assert damage.kl[1] <= damage.kl[0] <= damage.kl[2]
    assert found.whole.kl[0] == pytest.approx(float(naive_kl(opened, set(range(BLOCKS)))), rel=0.02)


def test_a_clean_model_refuses_nothing(answer: Activations) -> None:
    assert [each.method for each in answer.methods] == list(METHODS)
    assert all(each.refusing == [] for each in answer.methods)
    assert [each.block for each in answer.weights if each.refuses] == [1]
    assert (answer.bits, len(answer.windows), answer.tokens) == (4, 4, 4 * 63)
    split, smoothed = answer.find(LLM_INT8), answer.find(SMOOTHQUANT)
    assert split is not None and split.kept is not None
    assert set(split.kept) == {f"{n}.{k}" for n in range(BLOCKS) for k in opened_kinds()}
    assert smoothed is not None and smoothed.alphas is not None
    # Of fewer heads of values than of queries, o has no place for scales.
    assert list(smoothed.alphas)[:4] == ["0.qkv", "0.gate_up", "0.down", "1.qkv"]


def opened_kinds() -> tuple[str, ...]:
    return ("qkv", "o", "gate_up", "down")


def plant(model: Any) -> None:
    """A channel so large behind both norms of a block that rounding by token loses the others; what
    the weights do to it undoes that."""
    block = model.model.layers[GUILTY]
    attention, mlp = block.self_attn, block.mlp
    readers = {
        block.input_layernorm: (attention.q_proj, attention.k_proj, attention.v_proj),
        block.post_attention_layernorm: (mlp.gate_proj, mlp.up_proj),
    }
    for norm, linears in readers.items():
        norm.weight[CHANNEL] *= FACTOR
        for linear in linears:
            linear.weight[:, CHANNEL] /= FACTOR


def test_a_planted_outlier_is_refused_and_healed(
    even: Path, answer: Activations, text_file: Path, tmp_path: Path
) -> None:
    path = copy_changed(even, tmp_path / "model", plant)
    run = write_measured_run(tmp_path / "run", path, text_file)
    found = measure_activations(open_run(run, None), METHODS)
    refusing = {each.method: each.refusing for each in found.methods}
    assert refusing == {INT8: [GUILTY], LLM_INT8: [], SMOOTHQUANT: []}
    clean, split = answer.find(LLM_INT8), found.find(LLM_INT8)
    assert clean is not None and clean.kept and split is not None and split.kept
    for unit in (f"{GUILTY}.qkv", f"{GUILTY}.gate_up"):
        assert split.kept[unit] == pytest.approx(clean.kept[unit] + 1 / 128)


def test_a_stopped_study_goes_on_and_ends_alike(
    opened: OpenedRun,
    answer: Activations,
    even: Path,
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped in the second of its chunks of windows, and taken up with another method asked."""
    options = {"keep_fp16": ("3.down",), "max_memory": 2_000_000}
    again = open_run(write_measured_run(tmp_path / "run", even, text_file, **options), None)
    sweep, calls = measure.run_sweep, []

    def interrupted(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return sweep(*given, **named)

    monkeypatch.setattr(measure, "choose_size", lambda count, *_: 2)
    monkeypatch.setattr(measure, "run_sweep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure_activations(again, [INT8])
    folder = studies_of(again.run) / "activations"
    assert (folder / "int8-0.json").exists()
    told: list[tuple[str, int, int]] = []
    found = measure_activations(again, [INT8], lambda *event: told.append(event))
    assert len(calls) == 3 and not folder.exists()
    assert found.find(INT8) == answer.find(INT8)
    done = [event[1] for event in told]
    assert done == sorted(done) and told[-1][1] == told[-1][2]
    assert measure_activations(again, [INT8]) == found
    assert len(calls) == 3
    more = measure_activations(again, [LLM_INT8])
    assert more.find(INT8) == found.find(INT8)
    assert more.find(LLM_INT8) == answer.find(LLM_INT8)
    fewer = measure_activations(again, [INT8], windows=2)
    assert (fewer.windows, [each.method for each in fewer.methods]) == ([0, 2], [INT8])
    # As the help and the guide say, one number of windows gives way to another.
    assert read_known(ask(again.run, [INT8], None)).methods == []
    assert read_known(ask(again.run, [INT8], 2)) == fewer


def test_what_cannot_be_measured_is_refused(
    make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    path, text = make_model("llama"), tmp_path / "text.txt"
    text.write_bytes(text_file.read_bytes())
    opened = open_run(write_measured_run(tmp_path / "run", path, text), None)
    with pytest.raises(InputError, match="--method int4 is not known"):
        measure_activations(opened, ["int4"])
    with pytest.raises(InputError, match="--windows 0 is too few"):
        measure_activations(opened, [INT8], windows=0)
    text.write_text(text.read_text().replace("slow", "fast"))
    with pytest.raises(InputError, match="has changed since"):
        measure_activations(opened, [INT8])
    text.unlink()
    with pytest.raises(InputError, match="give the command in"):
        measure_activations(opened, [INT8])
