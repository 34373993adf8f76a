"""Everybody who reads a model's directory reads the same files of it: runs, comparisons, written
checkpoints, what servers are said to do, the form, and runs that are opened again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from awqscope.app.dashboard.jobs.request_checks import read_config
from awqscope.app.words.compared.comparison import list_facts
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import Comparison
from awqscope.diagnose.runs.spec import CompareSpec, RunSpec
from awqscope.diagnose.stages.comparison import prepare_comparison
from awqscope.diagnose.stages.pipeline import FREE, plan_pipeline, run_pipeline
from awqscope.diagnose.trials.finished import open_source
from awqscope.mixedprec.checkpoints.reader import checkpoint_bytes, open_checkpoint
from awqscope.mixedprec.checkpoints.serving import LOADS, SGLANG, TRANSFORMERS, VLLM, WRONG
from awqscope.mixedprec.checkpoints.writer import examine_serving, write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.foreign.candidate import open_candidate
from awqscope.mixedprec.models.catalogue import open_catalogue
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.recipes.recipe import load_recipe
from awqscope.mixedprec.scheme import Scheme
from tests.help.searched import write_searched_run

MakeModel = Callable[..., Path]
SCHEMES = {4: Scheme(4, 64, False), 8: Scheme(8, 64, True)}
ASIDE = "left aside, as transformers does: model_ema.safetensors"


def add_stray(folder: Path) -> None:
    """A file beside the weights whose tensors have the same names and other values."""
    tensors = load_file(folder / "model.safetensors")
    changed = {n: 2 * t if t.is_floating_point() else t for n, t in tensors.items()}
    save_file(changed, folder / "model_ema.safetensors", metadata={"format": "pt"})


@pytest.fixture
def strayed(make_model: MakeModel, tmp_path: Path) -> Path:
    path = Path(shutil.copytree(make_model("llama"), tmp_path / "model"))
    add_stray(path)
    return path


@pytest.fixture
def written(make_model: MakeModel, text_file: Path, tmp_path: Path) -> Path:
    """A checkpoint of ours."""
    run = write_searched_run(tmp_path / "run", make_model("llama"), text_file, changed={"0.o": 8})
    model, recipe = open_model(str(make_model("llama"))), load_recipe(run.path / "recipe.json")
    write_checkpoint(tmp_path / "out", model, recipe, run.searches, SCHEMES)
    return tmp_path / "out"


def test_a_run_says_what_it_leaves_aside(strayed: Path, text_file: Path, tmp_path: Path) -> None:
    text = str(text_file)
    spec = RunSpec(model=str(strayed), calib=text, valid=text, group_size=64, seq_len=64, windows=4)
    spec = spec.change(calib_windows=2, calib_seq_len=64, verify_units=0)
    said: list[str] = []

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pipeline(spec, tmp_path / "run", stop, on_note=said.append)
    # The last note is of the threads.
    assert said[:-1] == [f"{strayed}: {ASIDE}"]
    assert RunDirectory(tmp_path / "run").read().source.left_aside == ["model_ema.safetensors"]
    plan_pipeline(spec, tmp_path / "other", on_note=said.append)
    assert said[::2] == [f"{strayed}: {ASIDE}"] * 2
    # It goes on whether or not the file is still there.
    (strayed / "model_ema.safetensors").unlink()
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(spec, tmp_path / "run", stop, on_note=said.append)
    assert sum(ASIDE in note for note in said) == 2


def test_a_run_of_an_earlier_version_goes_on(
    make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    """It counted a tied head twice, and said nothing of other files. Other weights are others."""
    assert {"left_aside", "parameters", "quantized_before", "unit_weights"} == FREE
    text, model = str(text_file), str(make_model("llama", tie_word_embeddings=True))
    spec = RunSpec(model=model, calib=text, valid=text, group_size=64, seq_len=64, windows=4)
    spec = spec.change(calib_windows=2, calib_seq_len=64, verify_units=0)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(spec, tmp_path / "run", stop)
        run = RunDirectory(tmp_path / "run")
        source = dict(run.read().to_json()["source"])
        source.pop("left_aside", None)
        run.update(source={**source, "parameters": source["parameters"] + 1})
    run.update(source={**source, "hashes": {}})
    with pytest.raises(InputError, match="has changed since"):
        run_pipeline(spec, tmp_path / "run", stop)


def test_both_sides_of_a_comparison(strayed: Path, make_model: MakeModel, text_file: Path) -> None:
    sound = str(make_model("llama"))
    for reference, candidate in ((str(strayed), sound), (sound, str(strayed))):
        spec = CompareSpec(
            reference=reference, candidate=candidate, valid=str(text_file), seq_len=64, windows=2
        )
        work = prepare_comparison(spec)
        assert work.notes == (f"{strayed}: {ASIDE}",)
        assert isinstance(work.description, Comparison)
        left = [part.left_aside for part in (work.description.source, work.description.candidate)]
        assert sorted(map(list, left)) == [[], ["model_ema.safetensors"]]
    facts = list_facts(work.description)
    assert facts["Candidate's files"] == ASIDE
    reference_model = open_model(sound)
    block = open_candidate(str(strayed), reference_model).read_block(0).state_dict()
    for name, value in reference_model.read_block(0).state_dict().items():
        assert torch.equal(block[name], value), name


def test_a_written_checkpoint_with_another_file_beside_it(
    written: Path, make_model: MakeModel
) -> None:
    model = open_model(str(make_model("llama")))
    before = open_checkpoint(written)
    size, name = checkpoint_bytes(written), "model.layers.0.self_attn.q_proj"
    add_stray(written)
    after = open_checkpoint(written)
    assert after.tensors == before.tensors
    assert checkpoint_bytes(written) == size
    assert after.linear(name) is not None
    found = examine_serving(open_catalogue(written), model)
    outcomes = [found.outcome(who) for who in (VLLM, SGLANG, TRANSFORMERS)]
    assert outcomes == [WRONG, WRONG, LOADS]
    assert found.notes[-1] == (
        "Loads wrongly in vLLM and SGLang: it reads model_ema.safetensors as well"
    )


def test_the_models_own_name_for_its_weights_is_not_written(
    make_model: MakeModel, text_file: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(make_model("llama"), tmp_path / "model"))
    (path / "model.safetensors").rename(path / "ours.safetensors")
    config = json.loads((path / "config.json").read_text())
    config["transformers_weights"] = "ours.safetensors"
    (path / "config.json").write_text(json.dumps(config))
    run = write_searched_run(tmp_path / "run", path, text_file)
    recipe = load_recipe(run.path / "recipe.json")
    write_checkpoint(tmp_path / "out", open_model(str(path)), recipe, run.searches, SCHEMES)
    assert "transformers_weights" not in (tmp_path / "out" / "config.json").read_text()
    open_candidate(str(tmp_path / "out"), open_model(str(path)))


def test_the_form_takes_the_same_files(strayed: Path) -> None:
    assert read_config(str(strayed))["model_type"] == "llama"
    (strayed / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model_ema\.safetensors: if it holds"):
        read_config(str(strayed))


def test_a_run_that_was_measured_with_a_stray_file(
    strayed: Path, text_file: Path, tmp_path: Path
) -> None:
    run = write_searched_run(tmp_path / "run", strayed, text_file)
    assert open_source(run, None).aside == ("model_ema.safetensors",)
    source = run.read().to_json()["source"]
    hashes = {**source["hashes"], "model_ema.safetensors": "0" * 64}
    run.update(source={**source, "hashes": hashes})
    with pytest.raises(InputError, match=r"with model_ema\.safetensors among the weights"):
        open_source(run, None)
    run.update(source={**source, "hashes": {**source["hashes"], "config.json": "0" * 64}})
    with pytest.raises(InputError, match="is not the model of"):
        open_source(run, None)
