"""A run's recipe on other weights of its architecture: as a run of those would search and store
them, and refused in a line where they are of another."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from awqscope import Grouped, change_recipe, load_recipe, save_recipe
from awqscope.app.cli import app
from awqscope.diagnose.plan.room import Room
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.mixedprec.models.streams import StreamSpace
from tests.mixedprec.foreign.test_candidate import change_config, change_tensors, copy_model

MakeModel = Callable[..., Path]


@pytest.fixture(scope="module")
def made(
    make_model: MakeModel, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """A finished run of a tiny model with a unit promoted, and its options."""
    folder = tmp_path_factory.mktemp("another")
    text = shutil.copyfile(text_file, folder / "text.txt")
    sizes = ["--seq-len", "64", "--windows", "4", "--calib-windows", "4", "--calib-seq-len", "64"]
    texts = ["--calib", str(text), "--valid", str(text)]
    options = [*texts, *sizes, "--group-size", "64", "--verify-units", "1", "--top-k", "1"]
    run = folder / "run"
    arguments = ["run", str(make_model("llama")), *options, "--out", str(run)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return run, options


def change_weights(source: Path, folder: Path) -> Path:
    """The same architecture with other linears, as merging an adapter leaves it."""
    path = copy_model(source, folder)
    torch.manual_seed(5)
    change_tensors(
        path, lambda name, t: t + 0.01 * torch.randn(t.shape).to(t.dtype) if "_proj" in name else t
    )
    return path


def refused(arguments: list[str]) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    *_, said = result.stderr.splitlines()
    return said


def test_it_is_what_a_run_of_those_weights_stores(
    made: tuple[Path, list[str]], make_model: MakeModel, tmp_path: Path
) -> None:
    run, options = made
    model = change_weights(make_model("llama"), tmp_path)
    (model / "tokenizer.json").unlink()
    out = tmp_path / "out"
    arguments = ["requantize", str(run), "--weights", str(model), "--out", str(out)]
    result = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([model.name, "out"])
    shutil.copyfile(make_model("llama") / "tokenizer.json", model / "tokenizer.json")
    whole = tmp_path / "whole"
    result = CliRunner().invoke(app, ["run", str(model), *options, "--out", str(whole)])
    assert result.exit_code == 0, result.output
    again = tmp_path / "again"
    recipe = ["--recipe", str(run / "recipe.json"), "--out", str(again)]
    result = CliRunner().invoke(app, ["requantize", str(whole), *recipe])
    assert result.exit_code == 0, result.output
    found, wanted = (load_file(each / "model.safetensors") for each in (out, again))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    first = load_file(run / "checkpoint" / "model.safetensors")
    assert not all(torch.equal(found[name], first[name]) for name in first)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"--weights {model.name}" in card
    assert "cost another model of the same architecture" in " ".join(card.split())
    assert str(tmp_path) not in card


def test_groups_of_other_sizes_are_searched_anew_too(
    made: tuple[Path, list[str]], make_model: MakeModel, tmp_path: Path
) -> None:
    """On the run's own weights they are what the run finds itself."""
    run = tmp_path / "run"
    shutil.copytree(made[0], run)
    fine = change_recipe(load_recipe(run / "recipe.json"), {"0.o": Grouped(4, 32)})
    save_recipe(tmp_path / "fine.json", fine)
    write = ["requantize", str(run), "--recipe", str(tmp_path / "fine.json"), "--out"]
    again = [*write, str(tmp_path / "again"), "--weights", str(make_model("llama"))]
    score = ["recipe", str(run), "--options", "4,4x32", "--min-recovery", "0"]
    for arguments in ([*again, "--device", "cpu"], score, [*write, str(tmp_path / "own")]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    found, wanted = (load_file(tmp_path / each / "model.safetensors") for each in ("again", "own"))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    scales = "model.layers.0.self_attn.o_proj.weight_scale"
    assert wanted[scales].shape[1] == 2 * wanted[scales.replace("0", "1")].shape[1]


def test_a_stopped_search_goes_on(
    made: tuple[Path, list[str]],
    make_model: MakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From where it was, unless it was of other weights."""
    run, _ = made
    model, out = change_weights(make_model("llama"), tmp_path), tmp_path / "out"
    arguments = ["requantize", str(run), "--weights", str(model), "--out", str(out)]
    written = "awqscope.mixedprec.checkpoints.writer.write_checkpoint"

    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(written, stop)
        assert CliRunner().invoke(app, arguments).exit_code == 130
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob(".out.searches/*")}
    assert len(kept) > 2 and not out.exists()
    with monkeypatch.context() as patch:
        patch.setattr(written, stop)
        assert CliRunner().invoke(app, arguments).exit_code == 130
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    change_tensors(model, lambda name, t: t * 2 if "up_proj" in name else t)
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert not (tmp_path / ".out.searches").exists()


def test_its_search_keeps_to_the_budget(
    made: tuple[Path, list[str]],
    make_model: MakeModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused where a block does not fit; and what flows is kept in files where it does not."""
    run, _ = made
    model, out = change_weights(make_model("llama"), tmp_path), tmp_path / "out"
    arguments = ["requantize", str(run), "--weights", str(model), "--out", str(out)]
    said = refused([*arguments, "--max-memory", "64MiB"])
    assert "--max-memory 64MiB is too little" in said
    assert not out.exists() and not list(tmp_path.glob(".out*"))
    found = []

    def open_none(room: Room) -> StreamSpace:
        found.append((room, StreamSpace([(torch.device("cpu"), 0)], room.folder)))
        return found[-1][1]

    assert CliRunner().invoke(app, arguments).exit_code == 0
    monkeypatch.setattr(Room, "open", open_none)
    tight = [*arguments[:-1], str(tmp_path / "tight"), "--max-memory", "3GiB"]
    result = CliRunner().invoke(app, tight)
    assert result.exit_code == 0, result.output
    ((room, space),) = found
    assert room.budget == 3 * 2**30 and space.spilled_bytes > 0
    written, again = (load_file(tmp_path / o / "model.safetensors") for o in ("out", "tight"))
    assert all(torch.equal(again[name], written[name]) for name in written)


def test_what_is_refused(
    made: tuple[Path, list[str]], make_model: MakeModel, tmp_path: Path
) -> None:
    run, _ = made
    source, out = make_model("llama"), tmp_path / "out"
    arguments = ["requantize", str(run), "--out", str(out), "--weights"]
    other = make_model("llama", num_hidden_layers=3)
    said = refused([*arguments, str(other)])
    assert f"{other} is of another architecture: its num_hidden_layers is 3, the run's" in said
    assert "give a model that was made from" in said
    assert "another architecture: its model_type is qwen2" in refused(
        [*arguments, str(make_model("qwen2"))]
    )
    eps = copy_model(source, tmp_path)
    change_config(eps, rms_norm_eps=1e-3)
    assert "its rms_norm_eps is 0.001" in refused([*arguments, str(eps)])
    checkpoint = str(run / "checkpoint")
    assert "is already quantized" in refused([*arguments, checkpoint])
    assert f"its checkpoint is {checkpoint}" in refused([*arguments, str(run)])
    said = refused([*arguments, str(source), "--prove"])
    assert f"leave it out, and give awqscope compare {source} {out} then" in said
    text = Path(RunDirectory(run).read_searched().spec.calib)
    before = text.read_text(encoding="utf-8")
    text.write_text("Another text. " * 2000, encoding="utf-8")
    assert "has changed since" in refused([*arguments, str(source)])
    text.write_text(before, encoding="utf-8")
    assert not out.exists()
    assert not list(tmp_path.glob(".out*"))
