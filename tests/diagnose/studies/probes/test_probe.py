"""Probes against transformers' own forward, numpy, checkpoints on disk, and what the run itself
measured; and against a planted cause."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from awqscope.diagnose.inputs.corpora import Corpus
from awqscope.diagnose.inputs.load import load_inputs
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.diagnose.studies.probes import windows
from awqscope.diagnose.studies.probes.alternatives import (
    HALF,
    OWN,
    TWICE,
    Alternative,
    Calibration,
    list_alternatives,
)
from awqscope.diagnose.studies.probes.answer import BlockProbe
from awqscope.diagnose.studies.probes.applying import apply_alternative
from awqscope.diagnose.studies.probes.asked import choose_blocks
from awqscope.diagnose.studies.probes.measuring import Tried, build_probe_sweep, make_ready
from awqscope.diagnose.studies.probes.probe import probe_blocks
from awqscope.diagnose.studies.probes.searching import (
    cut_calibration,
    plan_searches,
    search_alternatives,
)
from awqscope.diagnose.studies.probes.weighing import BlockSizes
from awqscope.diagnose.studies.probes.windows import choose_windows
from awqscope.diagnose.sweep.swappable import uniform_widths
from awqscope.diagnose.trials.course import load_measured
from awqscope.diagnose.trials.finished import OpenedRun, list_unsearched, open_run
from awqscope.mixedprec.awq.choices import BlockSearch, load_searches, save_search, search_path
from awqscope.mixedprec.checkpoints.writer import write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.streams import in_memory
from awqscope.mixedprec.recipes.recipe import make_recipe
from awqscope.mixedprec.scheme import Grouped
from tests.help.probed import SPOILED, WITH_KEPT, write_spoiled_run
from tests.help.searched import build_whole


@pytest.fixture(scope="module")
def opened(
    make_model: Callable[..., Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> OpenedRun:
    run = write_spoiled_run(tmp_path_factory.mktemp("probes"), make_model, text_file)
    return open_run(run, None)


@pytest.fixture(scope="module")
def probe(opened: OpenedRun) -> BlockProbe:
    """Of the flagged block, on all windows."""
    [found] = probe_blocks(opened, windows=8)
    return found


def ready(opened: OpenedRun, block: int, folder: Path) -> dict[str, Tried]:
    """The alternatives to a block with their searches, made again."""
    inputs, spec, model = load_measured(opened.run, opened.model), opened.spec, opened.model
    planned = plan_searches(list_alternatives(opened.run.read_searched(), block, ()), spec, inputs)
    found = search_alternatives(
        planned, spec, inputs, block, folder, folder / "others", in_memory()
    )
    own = load_searches(opened.run.searches, block, tuple(spec.schemes))
    low = uniform_widths(model, spec.bits, frozenset(spec.keep_fp16), block)
    linears = {kind.name: kind.linears for kind in model.family.units}
    return {
        each.name: make_ready(each, found.get(each.name), own, spec, low, linears)
        for each in planned.taken
    }


@torch.no_grad()
def put_in(whole: PreTrainedModel, name: str, weights: Mapping[str, Tensor]) -> None:
    block = whole.get_submodule(name)
    for parameter, values in weights.items():
        block.get_parameter(parameter).data = values.clone()


@torch.no_grad()
def kl_of(reference: PreTrainedModel, other: PreTrainedModel, windows: Tensor) -> float:
    """Mean KL of all tokens that are scored, by torch's own divergence in float64."""
    ours, theirs = (
        torch.log_softmax(model(windows).logits[:, :-1].double(), -1)
        for model in (reference, other)
    )
    by_token = torch.nn.functional.kl_div(theirs, ours, reduction="none", log_target=True).sum(-1)
    return by_token.mean().item()


def test_every_alternative_is_what_transformers_computes(
    opened: OpenedRun, probe: BlockProbe, tmp_path: Path
) -> None:
    model, text = opened.model, load_measured(opened.run, opened.model).windows
    searches = opened.run.searches
    reference = build_whole(model, searches, {})
    tried = ready(opened, SPOILED, tmp_path)
    assert {each.name for each in probe.alternatives} == tried.keys()
    assert len(tried) == 12
    others = {"isolated": {}, "restored": opened.models["uniform"]}
    wholes = {view: build_whole(model, searches, bits) for view, bits in others.items()}
    for each in probe.alternatives:
        block = model.read_block(SPOILED)
        weights = tried[each.name].weights(block, model.dtype)
        for view, whole in wholes.items():
            found = getattr(each, view)
            put_in(whole, model.prefix(SPOILED), dict(block.named_parameters()))
            put_in(whole, model.prefix(SPOILED), weights)
            assert found[0] == pytest.approx(kl_of(reference, whole, text), rel=2e-3, abs=1e-7)
            assert found[1] <= found[0] <= found[2]


def test_gains_are_differences_and_bytes_those_of_the_scheme(probe: BlockProbe) -> None:
    for each in probe.alternatives:
        before = {"isolated": probe.isolated[0], "restored": probe.uniform[0]}
        for view, kl in before.items():
            after, gain = getattr(each, view)[0], getattr(each, f"{view}_gain")[0]
            assert gain == pytest.approx(kl - after, rel=1e-6, abs=1e-9)
        weights = probe.bytes * 8 / probe.bits_per_weight
        size = probe.bytes + each.extra_bytes
        assert each.bits_per_weight == pytest.approx(8 * size / weights)
    sizes = {each.name: each.extra_bytes for each in probe.alternatives}
    assert sizes["symmetric"] < 0 == sizes["rtn"] == sizes["no-clipping"]
    assert 0 < sizes["groups-32"] < sizes["block-8"] < sizes["block-16"]


def test_what_the_run_measured_itself_is_the_same(opened: OpenedRun, probe: BlockProbe) -> None:
    """Promotions of the flagged block were measured in the uniform model, on the same windows."""
    rows = opened.run.read_table("promotions").to_pylist()
    promoted = {tuple(row["units"]): row["kl"] for row in rows if row["block"] == SPOILED}
    kinds = [kind.name for kind in opened.model.family.units]
    wanted = {f"{kind}-8": (f"{SPOILED}.{kind}",) for kind in kinds}
    wanted["block-8"] = tuple(f"{SPOILED}.{kind}" for kind in kinds)
    for name, units in wanted.items():
        found = probe.find(name)
        assert found is not None
        assert found.restored[0] == pytest.approx(promoted[units], rel=1e-5)
    views = {
        row["view"]: row
        for row in opened.run.read_table("blocks").to_pylist()
        if row["block"] == SPOILED
    }
    whole = probe.find("block-16")
    assert whole is not None
    for found_kl, row in ((probe.isolated, views["isolated"]), (whole.restored, views["restored"])):
        assert found_kl == pytest.approx((row["kl"], row["kl_low"], row["kl_high"]), rel=1e-5)
    assert probe.uniform[0] == pytest.approx(opened.run.read_searched().measured.kl.uniform)
    assert whole.isolated[0] == 0


def test_the_planted_cause_is_what_helps_most_a_byte(probe: BlockProbe) -> None:
    assert (probe.block, probe.flagged) == (SPOILED, True)
    paid = [each for each in probe.alternatives if each.gain_per_megabyte is not None]
    units = [each for each in paid if each.name.endswith("-8")]
    assert (units[0].name, units[0].verdict) == ("o-8", "helps")
    assert units[0].isolated_gain[1] > 0
    # Without AWQ's scales and clipping nothing is left of what they had mended.
    assert probe.alternatives[-1].name == "rtn" and probe.alternatives[-1].verdict == "worse"


def test_a_recipe_of_groups_needs_no_further_search(opened: OpenedRun, probe: BlockProbe) -> None:
    run = opened.run
    recipe = apply_alternative(run, [probe], "groups-32")
    changed = {unit for unit, width in recipe.widths.items() if width == Grouped(3, 32)}
    assert changed == {f"{SPOILED}.{kind.name}" for kind in opened.model.family.units}
    assert list_unsearched(run, opened.spec, recipe.widths) == []
    elsewhere = recipe.widths | {"3.o": Grouped(3, 32)}
    assert list_unsearched(run, opened.spec, elsewhere) == [Grouped(3, 32)]


def test_rounding_to_nearest_is_numpys(opened: OpenedRun) -> None:
    model, spec = opened.model, opened.spec
    block = model.read_block(SPOILED)
    own = load_searches(opened.run.searches, SPOILED, (spec.bits,))
    low = uniform_widths(model, spec.bits, frozenset(), SPOILED)
    rtn = make_ready(Alternative("rtn", "", scaled=False), None, own, spec, low, {})
    weights = rtn.weights(block, model.dtype)
    assert len(weights) == 7
    for name, found in weights.items():
        weight = block.get_parameter(name).detach().numpy()
        grouped = weight.reshape(len(weight), -1, 64)
        low, high = grouped.min(-1, keepdims=True), grouped.max(-1, keepdims=True)
        scale = ((high - low) / np.float32(7)).astype(np.float16).astype(np.float32)
        zero = np.clip(-np.round(low / scale), 0, 7)
        codes = np.clip(np.round(grouped / scale) + zero, 0, 7)
        expected = ((codes - zero) * scale).reshape(weight.shape)
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["groups-32", "symmetric", "down-8", "block-16"])
def test_bytes_are_those_of_a_checkpoint(name: str, opened: OpenedRun, tmp_path: Path) -> None:
    """Of the same block at 4 bits, which a checkpoint can hold, by the sizes of its tensors."""
    record = opened.run.read_searched()
    spec = opened.spec.change(bits=4, keep_fp16=())
    record = record.changed(spec=spec)
    alternatives = {each.name: each for each in list_alternatives(record, SPOILED, ())}
    model, each = opened.model, alternatives[name]
    changed = {f"{SPOILED}.{kind}": width for kind, width in each.widths.items()}
    schemes = each.change(spec).schemes_at([4, *each.widths.values()])
    # Whatever was searched, as many bytes hold it.
    for block, (width, scheme) in itertools.product(range(model.blocks), schemes.items()):
        save_search(search_path(tmp_path, block, width), BlockSearch(scheme, (), {}))
    recipe = make_recipe("m", model.family, model.blocks, 4, changed=changed)
    write_checkpoint(tmp_path / "out", model, recipe, tmp_path, schemes)
    with safe_open(tmp_path / "out" / "model.safetensors", framework="np") as file:
        names = [n for n in file.keys() if n.startswith(f"{model.prefix(SPOILED)}.")]
        on_disk = sum(file.get_tensor(n).nbytes for n in names if "_proj." in n)
    kinds = {kind.name: kind.linears for kind in model.family.units}
    widths = {
        linear: each.widths.get(kind, 4) for kind, linears in kinds.items() for linear in linears
    }
    assert BlockSizes(model, spec, SPOILED).count(widths, each) == on_disk


def test_a_search_anew_of_what_the_run_has_finds_the_same(
    opened: OpenedRun, tmp_path: Path
) -> None:
    spec, inputs = opened.spec, load_measured(opened.run, opened.model)
    same = Alternative("same", "as the run", symmetric=False)
    planned = plan_searches([same], spec, inputs)
    found = search_alternatives(
        planned, spec, inputs, 3, tmp_path, tmp_path / "others", in_memory()
    )["same"]
    own = load_searches(opened.run.searches, 3, (3,))[3]
    assert [choice.ratio for choice in found.scales] == [choice.ratio for choice in own.scales]
    for ours, theirs in zip(found.scales, own.scales, strict=True):
        torch.testing.assert_close(ours.scales, theirs.scales, rtol=1e-5, atol=0)
    for name, clip in own.clips.items():
        torch.testing.assert_close(found.clips[name], clip, rtol=1e-4, atol=1e-6)


def test_units_that_are_kept_stay_so(opened: OpenedRun, tmp_path: Path) -> None:
    also = tmp_path / "also.txt"
    also.write_text("Another text, of other words. " * 400)
    [found] = probe_blocks(opened, [WITH_KEPT], windows=2, calib_also=[str(also)])
    names = {each.name: each for each in found.alternatives}
    assert "o-8" not in names and names["block-8"].widths == {
        f"{WITH_KEPT}.{kind}": "16" if kind == "o" else "8"
        for kind in ("qkv", "o", "gate_up", "down")
    }
    assert (found.flagged, len(found.windows), found.of_windows) == (False, 2, 8)
    assert names[f"calib:{also}"].options == f"--calib {also}"
    assert [each.name for each in found.refused] == ["groups-128"]
    assert "does not divide the 192 inputs of mlp.down_proj" in found.refused[0].why


def test_how_many_windows(opened: OpenedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, model, inputs = opened.spec, opened.model, load_measured(opened.run, opened.model)
    sweep = build_probe_sweep(spec, model, opened.run, 0, {"rtn": Tried({}, {})})

    def choose(asked: int | None) -> set[int]:
        calibration = inputs.search_windows
        return set(choose_windows(spec, model, inputs.windows, sweep, calibration, asked))

    few, more = choose(3), choose(5)
    assert (len(few), len(more)) == (3, 5) and few < more
    assert choose(None) == set(range(8))
    monkeypatch.setattr(windows, "ENOUGH_FLOPS", 0)
    assert len(choose(None)) == windows.LEAST_WINDOWS


def test_other_windows_are_those_that_the_named_option_reads(opened: OpenedRun) -> None:
    inputs = load_measured(opened.run, opened.model)
    assert torch.equal(cut_calibration(OWN, opened.spec, inputs), inputs.search_windows)
    for share, count in ((HALF, 2), (TWICE, 8)):
        read = load_inputs(opened.spec.change(calib_windows=count), opened.model).search_windows
        cut = cut_calibration(Calibration(share=share), opened.spec, inputs)
        assert len(cut) == count and torch.equal(cut, read)
    short = dataclasses.replace(inputs, calib=Corpus("short", "a few words " * 20, ""))
    with pytest.raises(InputError, match=r"the calibration text has \d windows of 64, not 8"):
        cut_calibration(Calibration(share=TWICE), opened.spec, short)
    one = dataclasses.replace(inputs, search_windows=inputs.search_windows[:1])
    with pytest.raises(InputError, match="reads one window"):
        cut_calibration(Calibration(share=HALF), opened.spec, one)


class StoppedError(Exception):
    """A process that ends in the middle."""


def test_a_stopped_probe_goes_on_and_finds_the_same(opened: OpenedRun) -> None:
    steps: list[tuple[str, int, int]] = []
    [whole] = probe_blocks(opened, [0], windows=4, progress=lambda *s: steps.append(s))
    study = opened.run.path / "studies" / "probe-0.json"
    assert not study.with_suffix("").exists()
    [again] = probe_blocks(opened, [0], windows=4, progress=lambda *s: pytest.fail("measured"))
    assert again == whole
    done = [step / total for stage, step, total in steps if stage.startswith("measuring")]
    assert done == sorted(done) and done[-1] == 1
    study.unlink()
    searched: list[str] = []
    for stop in (len(steps) // 3, len(steps) * 2 // 3):
        left = stop

        def count(stage: str, done: int, total: int) -> None:
            nonlocal left
            searched.append(f"{stage} {done}")
            left -= 1
            if left == 0:
                raise StoppedError

        with pytest.raises(StoppedError):
            probe_blocks(opened, [0], windows=4, progress=count)
        assert not study.exists()
    [found] = probe_blocks(opened, [0], windows=4, progress=lambda *s: searched.append(str(s[0])))
    assert found == whole
    # What was searched before it was stopped was not searched again.
    assert len(searched) < 2 * len(steps)


def test_which_blocks(opened: OpenedRun) -> None:
    assert choose_blocks(opened.run) == (SPOILED,)
    assert choose_blocks(opened.run, [3, 0, 3]) == (3, 0)
    with pytest.raises(InputError, match="no block 4"):
        choose_blocks(opened.run, [4])


def test_a_block_that_is_kept_is_refused(opened: OpenedRun, tmp_path: Path) -> None:
    run, record = RunDirectory(tmp_path), opened.run.read_searched()
    *most, last = (f"3.{kind}" for kind in record.source.units)
    run.create(record.changed(spec=record.spec.change(keep_fp16=(*most, last))))
    with pytest.raises(InputError, match="block 3 is kept at 16 bits: give a block that is"):
        choose_blocks(run, [3])
    run.update(spec=record.spec.change(keep_fp16=tuple(most)))
    assert choose_blocks(run, [3]) == (3,)


def test_the_worst_block_where_none_is_flagged(opened: OpenedRun, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    record = opened.run.read_searched()
    run.create(record.changed(headline=record.measured.changed(flagged=[])))
    run.write_arrow("blocks", opened.run.read_table("blocks"))
    assert choose_blocks(run) == (SPOILED,)


def test_a_text_that_changed_or_is_gone_is_refused(opened: OpenedRun) -> None:
    text = Path(opened.spec.calib)
    before = text.read_text(encoding="utf-8")
    try:
        text.write_text(before.replace("the", "thy"), encoding="utf-8")
        with pytest.raises(InputError, match="has changed since"):
            load_measured(opened.run, opened.model)
        text.unlink()
        with pytest.raises(InputError, match="where the run was begun"):
            load_measured(opened.run, opened.model)
    finally:
        text.write_text(before, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mixtral", "gpt_neox", "phi3", "gemma2", "opt"])
def test_other_families(
    family: str, make_model: Callable[..., Path], text_file: Path, tmp_path: Path
) -> None:
    """In float32 on disk, so that the checkpoint stores other embeddings than the reference has."""
    spec = RunSpec(
        model=str(make_model(family, torch.float32)),
        calib=str(text_file),
        valid=str(text_file),
        bits=3,
        group_size=64,
        seq_len=64,
        windows=8,
        calib_windows=4,
        calib_seq_len=64,
        verify_units=2,
    )
    run = run_pipeline(spec, tmp_path / "run", lambda *event: None)
    [found] = probe_blocks(open_run(run, None), [1], windows=8)
    rows = run.read_table("blocks").to_pylist()
    views = {row["view"]: row["kl"] for row in rows if row["block"] == 1}
    assert found.isolated[0] == pytest.approx(views["isolated"], rel=1e-4)
    whole = found.find("block-16")
    assert whole is not None
    assert whole.restored[0] == pytest.approx(views["restored"], rel=1e-2)
    assert all(math.isfinite(value) for each in found.alternatives for value in each.restored)
    most = max(each.restored_gain[0] for each in found.alternatives)
    # Where rounding happens to mend what other blocks did, 8 bits give back a little more.
    assert whole.restored_gain[0] == pytest.approx(most, rel=0.05)
