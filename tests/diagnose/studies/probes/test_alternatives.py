"""The table of alternatives: what there is for which run, and which options make it of a run."""

import shlex

import pytest

from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.studies.probes.alternatives import Alternative, list_alternatives
from tests.help.runs import make_record


def listed(block: int = 0, also: tuple[str, ...] = (), **options: object) -> dict[str, Alternative]:
    record = make_record(RunSpec(model="m", **options))  # type: ignore[arg-type]
    return {each.name: each for each in list_alternatives(record, block, also)}


def test_what_there_is_for_a_plain_run() -> None:
    names = list(listed(group_size=64, also=("a.txt", "b.txt", "a.txt")))
    assert names == [
        *("groups-32", "groups-128"),
        *("qkv-8", "o-8", "gate_up-8", "down-8", "block-8", "block-16"),
        *("no-clipping", "symmetric", "rtn", "half-calibration", "twice-calibration"),
        *("calib:a.txt", "calib:b.txt"),
    ]


def test_what_follows_from_the_runs_own_options() -> None:
    assert {"groups-64", "groups-128"} < listed(group_size=32).keys()
    assert {"groups-32", "groups-64", "groups-128"} < listed(group_size=-1).keys()
    zeros = listed(symmetric=True)
    assert "symmetric" not in zeros and zeros["zero-points"].symmetric is False
    kept = listed(keep_fp16=("0.o", "1.down"), rescue_bits=6)
    assert "o-6" not in kept and {"down-6", "block-6"} < kept.keys()
    assert kept["block-16"].widths == {"qkv": 16, "gate_up": 16, "down": 16}
    assert kept["groups-32"].widths.keys() == {"qkv", "gate_up", "down"}


def test_one_unit_is_the_whole_block() -> None:
    left = listed(keep_fp16=("0.o", "0.qkv", "0.down"))
    assert "gate_up-8" not in left and left["block-8"].widths == {"gate_up": 8}


def test_a_block_of_which_nothing_is_quantized_has_no_widths_to_change() -> None:
    bare = listed(keep_fp16=tuple(f"0.{kind}" for kind in ("o", "qkv", "down", "gate_up")))
    assert not any(each.is_recipe for each in bare.values())


@pytest.mark.parametrize(
    ("search", "windows", "units", "more"),
    [
        ("exact", 64, ["qkv", "down"], "--calib-windows 128"),
        # A fast search of a run does not read as many, and what an exact one finds is another
        # question: no options make what is measured.
        ("fast", 16, ["qkv", "down"], ""),
        ("fast", 4, ["qkv", "down"], "--calib-windows 8"),
        # Of a mixture of experts a fast search reads all windows.
        ("fast", 64, ["qkv", "experts"], "--calib-windows 128"),
    ],
)
def test_which_options_read_other_windows(
    search: str, windows: int, units: list[str], more: str
) -> None:
    record = make_record(RunSpec(model="m", search=search))
    record = record.changed(source=record.source.changed(units=units))
    text = record.calibration.changed(windows=64, searched=windows, seq_len=512)
    given = list_alternatives(record.changed(calibration=text), 0, ())
    half, twice = (each for each in given if each.name.endswith("-calibration"))
    assert half.options == f"--calib-windows {windows // 2}"
    assert twice.options == more
    assert twice.what.endswith("more than a run's fast search reads") is not bool(more)


def test_a_texts_name_is_one_word_of_a_command() -> None:
    options = listed(also=("my text.txt",))["calib:my text.txt"].options
    assert shlex.split(options) == ["--calib", "my text.txt"]


def test_a_scheme_of_its_own() -> None:
    spec = RunSpec(model="m", group_size=64)
    given = listed(group_size=64)
    assert given["groups-32"].scheme(spec).group_size == 32
    assert given["symmetric"].scheme(spec).symmetric
    assert given["rtn"].scheme(spec) == spec.low
    searched = {name for name, each in given.items() if each.is_searched}
    wanted = {"groups-32", "groups-128", "symmetric", "half-calibration", "twice-calibration"}
    assert searched == wanted
