"""What a run decides by its model before it begins."""

from collections.abc import Callable
from pathlib import Path

import pytest

from awqscope.diagnose.inputs.load import describe, load_inputs, settle_groups
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.pipeline import plan_pipeline, settle
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.opening import open_model


def spec_of(model: Path, text: Path, **options: object) -> RunSpec:
    return RunSpec(model=str(model), calib=str(text), valid=(str(text),), seq_len=32, **options)


@pytest.mark.parametrize(("inner", "size"), [(256, 128), (192, 64), (160, 32), (144, 128)])
def test_groups_are_the_largest_that_tile(
    make_model: Callable[..., Path], text_file: Path, inner: int, size: int
) -> None:
    """Where none tiles, 128 stays, and is refused as if it had been asked for."""
    path = make_model("llama", intermediate_size=inner)
    spec, notes = settle_groups(spec_of(path, text_file), open_model(str(path)))
    assert spec.group_size == size
    fits = inner % 128 == 0 or inner == 144
    said = f"groups of {size}: 128 does not divide the {inner} inputs of mlp.down_proj"
    assert notes == (() if fits else (said,))


def test_groups_that_are_asked_for_stay(make_model: Callable[..., Path], text_file: Path) -> None:
    path = make_model("llama", intermediate_size=192)
    for size in (32, -1):
        spec = spec_of(path, text_file, group_size=size)
        assert settle_groups(spec, open_model(str(path))) == (spec, ())
    with pytest.raises(InputError, match="group size 128 does not divide the 192 inputs"):
        settle(spec_of(path, text_file, group_size=128))[1]()


def test_the_run_has_its_groups_and_goes_on_with_them(
    make_model: Callable[..., Path], text_file: Path, tmp_path: Path
) -> None:
    path, said = make_model("llama", intermediate_size=192), []
    spec = spec_of(path, text_file, calib_windows=2, calib_seq_len=32, windows=2)
    plan_pipeline(spec, tmp_path / "run", on_note=said.append)
    assert said[0] == "groups of 64: 128 does not divide the 192 inputs of mlp.down_proj"
    settled, prepare = settle(spec)
    run = RunDirectory(tmp_path / "run")
    run.create(prepare().description)
    assert run.read_searched().spec.group_size == 64
    assert plan_pipeline(spec, run.path)
    assert plan_pipeline(settled, run.path)
    with pytest.raises(InputError, match="another run"):
        plan_pipeline(spec.change(group_size=32), run.path)


@pytest.mark.parametrize(
    ("family", "search", "read"),
    [("llama", "fast", 5), ("llama", "exact", 10), ("mixtral", "fast", 10)],
)
def test_a_fast_search_reads_a_part_of_the_text_but_of_a_mixture(
    make_model: Callable[..., Path],
    text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    search: str,
    read: int,
) -> None:
    monkeypatch.setattr("awqscope.mixedprec.awq.search.ENOUGH_TOKENS", 5 * 64)
    spec = spec_of(make_model(family), text_file, calib_windows=10, calib_seq_len=64, windows=2)
    spec = settle(spec.change(search=search))[0]
    inputs = load_inputs(spec)
    assert len(inputs.search_windows) == read
    calibration = describe(spec, inputs).calibration
    assert (calibration.windows, calibration.searched) == (10, read)
