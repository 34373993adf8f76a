"""Alternatives of a whole run of a tiny model: against the run's own numbers, transformers' forward
with weights put in by hand, and files of other tools."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from torch import Tensor
from transformers import AutoModelForCausalLM

from awqscope.diagnose.inputs.load import load_inputs
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.diagnose.studies.alternatives import choosing
from awqscope.diagnose.studies.alternatives.answer import Alternatives
from awqscope.diagnose.studies.alternatives.compare import compare_alternatives
from awqscope.diagnose.studies.alternatives.methods import METHODS
from awqscope.diagnose.studies.alternatives.rounding import Gguf, UnusableLibraryError, loading
from awqscope.diagnose.trials.finished import OpenedRun, open_run
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.recipe import change_recipe, load_recipe, recipe_json
from tests.help.packed import write_gguf
from tests.help.searched import build_whole
from tests.help.whole_runs import measuring_spec

MakeModel = Callable[..., Path]
# The one linear of the unit that the run keeps at 16 bits.
KEPT = "model.layers.1.self_attn.o_proj"
ONLY = ("rescue", "mixed", "awq-g32", "rtn", "gguf-q8_0")


@pytest.fixture(scope="module")
def spec(make_model: MakeModel, text_file: Path) -> RunSpec:
    return measuring_spec(make_model, text_file)


@pytest.fixture(scope="module")
def opened(spec: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> OpenedRun:
    out = tmp_path_factory.mktemp("alternatives") / "run"
    return open_run(run_pipeline(spec, out, lambda *event: None), None)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where files are unpacked, away from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def packed(spec: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's model as a GGUF file whose linears are Q8_0."""
    path = tmp_path_factory.mktemp("packed") / "model.gguf"
    write_gguf(path, Path(spec.model), GGMLQuantizationType.Q8_0)
    return path


@pytest.fixture(scope="module")
def found(opened: OpenedRun, packed: Path) -> Alternatives:
    added = {"file": str(packed)}
    return compare_alternatives(opened, only=ONLY, added=added, by_block=True)


@torch.no_grad()
def judge(reference: torch.nn.Module, model: torch.nn.Module, windows: Tensor) -> dict[str, list]:
    """Means by window of NLL, KL and agreement, from transformers' logits in float64."""
    means: dict[str, list] = {"nll": [], "kl": [], "agreement": []}
    for window in windows:
        p, q = (
            each(input_ids=window[None]).logits[0, :-1].double().log_softmax(-1)
            for each in (reference, model)
        )
        means["nll"].append(-q.gather(1, window[1:, None]).mean().item())
        means["kl"].append((p.exp() * (p - q)).sum(-1).mean().item())
        means["agreement"].append((p.argmax(-1) == q.argmax(-1)).double().mean().item())
    return means


def assert_judged(found: Alternatives, name: str, expected: Mapping[str, list]) -> None:
    row = found.find(name)
    assert row is not None
    np.testing.assert_allclose(row.by_window.nll, expected["nll"], rtol=1e-5)
    np.testing.assert_allclose(row.by_window.kl, expected["kl"], rtol=2e-3)
    np.testing.assert_allclose(row.by_window.agreement, expected["agreement"], atol=0.05)
    assert row.ppl == pytest.approx(np.exp(np.mean(expected["nll"])), rel=1e-5)
    assert row.kl[0] == pytest.approx(np.mean(row.by_window.kl))


def read_whole(spec: RunSpec) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(spec.model, dtype=torch.float32).eval()


def test_uniform_is_the_runs_own_to_the_last_bit(opened: OpenedRun, found: Alternatives) -> None:
    tokens = opened.run.read_table("tokens")
    row = found.find("uniform")
    assert row is not None
    windows = np.asarray(tokens["window"])
    for entry, column in (("nll", "nll_uniform"), ("kl", "kl_uniform")):
        values = tokens[column].to_numpy(zero_copy_only=False).astype(np.float64)
        by_window = [values[windows == n][1:] for n in range(found.windows)]
        expected = torch.tensor(np.stack(by_window)).mean(1)
        assert getattr(row.by_window, entry) == expected.tolist()
    headline = opened.run.read_searched().measured
    assert row.kl[0] == headline.kl.uniform
    assert row.ppl == headline.ppl.uniform
    assert row.agreement[0] == headline.top1_agreement.uniform
    assert row.bytes == headline.bytes.uniform
    assert row.delta_ppl == headline.delta_ppl.uniform
    assert found.reference_ppl == headline.ppl.reference
    assert row.kl_over_uniform == (0.0, 0.0, 0.0)
    assert row.seconds == opened.run.read().stages["search"].seconds


def test_blocks_alone_are_the_runs_own(opened: OpenedRun, found: Alternatives) -> None:
    rows = [row for row in opened.run.read_table("blocks").to_pylist() if row["view"] == "isolated"]
    uniform, mixed = (found.find(name) for name in ("uniform", "mixed"))
    assert uniform is not None and uniform.blocks is not None
    assert [kl for kl, _, _ in uniform.blocks] == [row["kl"] for row in rows]
    assert mixed is not None and mixed.blocks is not None
    flagged = opened.run.read_searched().measured.flagged
    for number, (ours, theirs) in enumerate(zip(mixed.blocks, uniform.blocks, strict=True)):
        # Only what the recipe raises differs.
        assert (ours[0] < theirs[0]) if number in flagged else (ours == theirs)


def test_rtn_is_numpys_in_transformers(
    spec: RunSpec, opened: OpenedRun, found: Alternatives
) -> None:
    reference, whole = read_whole(spec), read_whole(spec)
    for name, linear in whole.named_modules():
        if not isinstance(linear, torch.nn.Linear) or ".layers." not in name or name == KEPT:
            continue
        grouped = linear.weight.detach().numpy().reshape(-1, spec.low.group_size)
        low, high = grouped.min(1, keepdims=True), grouped.max(1, keepdims=True)
        scale = ((high - low) / (2**spec.bits - 1)).astype(np.float16).astype(np.float32)
        zero = np.clip(-np.round(low / scale), 0, 2**spec.bits - 1)
        codes = np.clip(np.round(grouped / scale) + zero, 0, 2**spec.bits - 1)
        rounded = ((codes - zero) * scale).reshape(linear.weight.shape)
        linear.weight.data = torch.from_numpy(rounded.astype(np.float32))
    windows = load_inputs(spec).windows
    assert_judged(found, "rtn", judge(reference, whole, windows))


def test_smaller_groups_are_searched_and_put_in_place(
    spec: RunSpec, opened: OpenedRun, found: Alternatives, tmp_path: Path
) -> None:
    inputs, smaller = load_inputs(spec), spec.change(group_size=32)
    search_model(inputs.model, inputs.search_windows, [smaller.low], tmp_path, exact=False)
    bits = dict(opened.models["uniform"])
    whole = build_whole(inputs.model, tmp_path, bits)
    assert_judged(found, "awq-g32", judge(read_whole(spec), whole, inputs.windows))
    row = found.find("awq-g32")
    assert row is not None and row.seconds is not None and row.seconds > 0


def test_a_file_of_another_tool_is_what_is_made_here(found: Alternatives) -> None:
    """Q8_0 as llama.cpp's package wrote it into a file, and as it is made here: but for the unit
    that the run keeps, the same model."""
    made, read = found.find("gguf-q8_0"), found.find("file")
    assert made is not None and read is not None
    assert made.blocks is not None and read.blocks is not None
    for number, (ours, theirs) in enumerate(zip(made.blocks, read.blocks, strict=True)):
        assert (ours == theirs) or number == 1
    assert made.title == "GGUF Q8_0" and read.title == "file (gguf)"
    kept = 128 * 128
    assert read.bits_per_weight == 8.5
    weights = 4 * (3 * 128 * 256 + 2 * 128 * 128 + 2 * 128 * 64)
    assert made.bits_per_weight == pytest.approx((8.5 * (weights - kept) + 16 * kept) / weights)
    assert read.seconds is None and read.places == []


def test_differences_are_paired_by_window(found: Alternatives) -> None:
    uniform = found.find("uniform")
    assert uniform is not None
    for row in found.rows:
        apart = np.subtract(row.by_window.kl, uniform.by_window.kl)
        value, low, high = row.kl_over_uniform
        assert value == pytest.approx(apart.mean(), abs=1e-12)
        assert apart.min() - 1e-12 <= low <= value <= high <= apart.max() + 1e-12
    kls = [row.kl[0] for row in found.rows]
    assert kls == sorted(kls)


def test_what_was_measured_is_not_measured_again(
    opened: OpenedRun, found: Alternatives, packed: Path
) -> None:
    stages: list[str] = []
    more = compare_alternatives(
        opened, lambda stage, *_: stages.append(stage), only=("rtn", "gguf-q4_1")
    )
    assert set(stages) == {"measuring the reference", "measuring gguf-q4_1"}
    assert {row.name for row in more.rows} == {*ONLY, "uniform", "file", "gguf-q4_1"}
    for row in found.rows:
        assert more.find(row.name) == row
    # A file is known by what it holds.
    packed.write_bytes(packed.read_bytes())
    again = compare_alternatives(opened, only=("rtn",), added={"file": str(packed)})
    assert again.find("file") == found.find("file")


def test_what_is_of_another_recipe_does_not_stay(
    opened: OpenedRun, found: Alternatives, tmp_path: Path
) -> None:
    copied = RunDirectory(Path(shutil.copytree(opened.run.path, tmp_path / "run")))
    recipe = load_recipe(copied.path / "recipe.json")
    low = change_recipe(recipe, dict(opened.models["uniform"]))
    (copied.path / "recipe.json").write_text(json.dumps(recipe_json(low)), encoding="utf-8")
    assert found.find("mixed") is not None
    again = compare_alternatives(open_run(copied, None), only=("rtn",))
    assert again.find("mixed") is None
    assert again.find("rescue") == found.find("rescue")


def test_blocks_that_are_asked_for_later_need_no_search(opened: OpenedRun, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(opened.run.path, copied, ignore=shutil.ignore_patterns("studies"))
    fresh, only = open_run(RunDirectory(copied), None), ("awq-g32", "rtn")
    plain = compare_alternatives(fresh, only=only)
    files = {p: p.stat().st_mtime_ns for p in copied.rglob("block-*.safetensors")}
    stages: list[str] = []
    blocks = compare_alternatives(
        fresh, lambda stage, *_: stages.append(stage), only=only, by_block=True
    )
    assert set(stages) == {f"blocks of {name}" for name in ("uniform", *only)}
    assert {p: p.stat().st_mtime_ns for p in copied.rglob("block-*.safetensors")} == files
    for row in blocks.rows:
        assert row.blocks is not None and len(row.blocks) == 4
        assert row.changed(blocks=None) == plain.find(row.name)


@pytest.mark.parametrize("broken", [ImportError("no libcuda"), OSError("no libggml")])
def test_a_library_that_does_not_load_leaves_out_its_method_alone(
    opened: OpenedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Exception
) -> None:
    copied = tmp_path / "run"
    shutil.copytree(opened.run.path, copied, ignore=shutil.ignore_patterns("studies"))
    fresh = open_run(RunDirectory(copied), None)

    def load(linear: object, weight: Tensor) -> Tensor:
        with loading("gguf", "another"):
            raise broken

    monkeypatch.setattr(Gguf, "__call__", load)
    few = [method for method in METHODS if method.name in ("uniform", "gguf-q8_0", "rtn")]
    monkeypatch.setattr(choosing, "METHODS", few)
    found = compare_alternatives(fresh)
    assert {row.name for row in found.rows} == {"uniform", "rtn"}
    assert found.left_out["gguf-q8_0"] == f"the gguf that is installed cannot be used ({broken})"
    with pytest.raises(UnusableLibraryError, match="cannot be used"):
        compare_alternatives(fresh, only=("gguf-q8_0",))
    # Any other error ends the command.
    full = InputError("no space left", "make room")
    monkeypatch.setattr(Gguf, "__call__", Mock(side_effect=full))
    with pytest.raises(InputError, match="no space left"):
        compare_alternatives(fresh)


def test_a_stopped_study_goes_on(opened: OpenedRun, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(opened.run.path, copied, ignore=shutil.ignore_patterns("studies"))
    fresh = open_run(RunDirectory(copied), None)
    only = ("awq-g32", "rtn")

    stages: list[str] = []

    def stop_at(*event: object) -> Callable[[str, int, int], None]:
        stages.clear()

        def note(stage: str, done: int, total: int) -> None:
            stages.append(stage)
            if (stage, done) == event:
                raise KeyboardInterrupt

        return note

    with pytest.raises(KeyboardInterrupt):
        compare_alternatives(fresh, stop_at("measuring rtn", 2), only=only)
    with pytest.raises(KeyboardInterrupt):
        compare_alternatives(fresh, stop_at("searching awq-g32", 3), only=only)
    assert "measuring uniform" not in stages and "measuring rtn" in stages
    (searches,) = (copied / "studies" / "alternatives-searches").glob("awq-g32-*")
    before = {path.name: path.stat().st_mtime_ns for path in searches.glob("block-*")}
    assert len(before) == 3
    with pytest.raises(KeyboardInterrupt):
        compare_alternatives(fresh, stop_at("measuring awq-g32", 1), only=only)
    assert "measuring rtn" not in stages
    after = {path.name: path.stat().st_mtime_ns for path in searches.glob("block-*")}
    assert len(after) == 4 and before.items() < after.items()
    ended = compare_alternatives(fresh, stop_at(), only=only)
    assert not copied.joinpath("studies", "alternatives").exists()
    whole = compare_alternatives(opened, only=only)
    for name in ("uniform", *only):
        ours, theirs = ended.find(name), whole.find(name)
        assert ours is not None and theirs is not None
        assert ours.by_window == theirs.by_window


def test_what_cannot_be_used_is_refused(
    opened: OpenedRun, make_model: MakeModel, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="rtn is an alternative of its own"):
        compare_alternatives(opened, added={"rtn": "x"})
    with pytest.raises(InputError, match="cannot be called 'a/b'"):
        compare_alternatives(opened, added={"a/b": "x"})
    with pytest.raises(InputError, match="there is no"):
        compare_alternatives(opened, only=("rtn",), added={"other": str(tmp_path / "none")})
    other = make_model("qwen2", num_hidden_layers=4)
    with pytest.raises(InputError, match="model_type"):
        compare_alternatives(opened, only=("rtn",), added={"other": str(other)})


def test_a_text_that_has_changed_is_refused(
    opened: OpenedRun, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = opened.run.read().ppl_definition
    opened.run.update(ppl_definition=definition.changed(tokens_sha256="0" * 64))
    try:
        with pytest.raises(InputError, match="has changed"):
            compare_alternatives(opened, only=("rtn",))
    finally:
        opened.run.update(ppl_definition=definition)
