"""What is newly broken and what was mended, against plain loops over the tables."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from awqscope.diagnose.compared.changes import (
    AFTER,
    BEFORE,
    MATERIAL,
    MOST_TOKENS,
    CostChange,
    choose_material,
    read_step,
    read_token_changes,
    subtract_costs,
)
from awqscope.diagnose.compared.choosing import open_side, open_sides, split_name
from awqscope.diagnose.compared.releases import choose_releases, group_by_model
from awqscope.diagnose.gate.findings import Missing
from awqscope.mixedprec.errors import InputError
from tests.help.releases import OTHER_TOKENS, raise_damage, side, write_release
from tests.help.runs import SAMPLE, change_record, write_comparison, write_run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    write_release(folder, "v2", 1.2, day=2)
    write_release(folder, "v1", 1.0, day=1)
    raise_damage(folder / "v2", 2, "2.down", 6)
    return folder


def test_what_is_sure_and_material_by_hand() -> None:
    found = subtract_costs(
        {0: (1, 0.7, 1.4), 1: (2, 2, 2), 3: (1, 1, 1)}, {1: (5, 4, 6), 0: (1, 1, 1)}
    )
    assert [each.of for each in found] == [0, 1]
    assert (found[0].difference, found[0].low, found[0].high) == pytest.approx((0, -0.4, 0.3))
    assert (found[1].difference, found[1].low, found[1].high) == pytest.approx((3, 2, 4))
    changes = [
        CostChange("small", 1, 1.01, 0.01, 0.005, 0.015),
        CostChange("unsure", 1, 2, 1, -0.1, 2),
        CostChange("broken", 1, 2, 1, 0.1, 2),
        CostChange("mended", 3, 1, -2, -3, -1),
    ]
    assert [each.of for each in choose_material(changes, 0.05)] == ["mended", "broken"]


def test_a_raised_block_and_unit_are_found_and_nothing_else(root: Path) -> None:
    a, b = side(root / "v1"), side(root / "v2")
    there = read_step(a, b)
    assert there.threshold == pytest.approx(MATERIAL * a.record.measured.kl.of("mixed"))
    assert not isinstance(there.blocks, Missing) and not isinstance(there.units, Missing)
    assert [(each.of, each.difference > 0) for each in there.blocks] == [(2, True)]
    assert [(each.of, each.difference > 0) for each in there.units] == [("2.down", True)]
    back = read_step(b, a)
    assert not isinstance(back.blocks, Missing) and not isinstance(back.units, Missing)
    assert back.blocks[0].difference == pytest.approx(-there.blocks[0].difference)


def test_tokens_are_counted_and_shown_as_a_loop_does(root: Path) -> None:
    found = read_token_changes(side(root / "v1"), side(root / "v2"))
    assert not isinstance(found, Missing)
    before, after = (
        pq.read_table(root / name / "tokens.parquet").to_pylist() for name in ("v1", "v2")
    )
    broken, mended, scored = [], [], 0
    for at, (old, new) in enumerate(zip(before, after, strict=True)):
        if old["kl_mixed"] is None or new["kl_mixed"] is None:
            continue
        scored += 1
        if old["agree_mixed"] and not new["agree_mixed"]:
            broken.append((new["kl_mixed"], at))
        if new["agree_mixed"] and not old["agree_mixed"]:
            mended.append((old["kl_mixed"], at))
    assert (found.scored, found.broken, found.mended) == (scored, len(broken), len(mended))
    assert scored > 10_000 and min(len(broken), len(mended)) > MOST_TOKENS
    for rows, expected in ((found.worst, broken), (found.best, mended)):
        places = [at for _, at in sorted(expected, key=lambda each: -each[0])[:MOST_TOKENS]]
        wanted = [(after[at]["window"], after[at]["position"]) for at in places]
        assert [(row["window"], row["position"]) for row in rows] == wanted
        for row, at in zip(rows, places, strict=True):
            here = [r for r in after if r["window"] == row["window"]]
            position = row["position"]
            assert row["text"] == here[position]["text"]
            texts = [r["text"] for r in here]
            assert row["before"] == "".join(texts[max(0, position - BEFORE) : position])
            assert row["after"] == "".join(texts[position + 1 : position + 1 + AFTER])
            assert row["kl_before"] == pytest.approx(before[at]["kl_mixed"])
            assert row["kl_after"] == pytest.approx(after[at]["kl_mixed"])


def test_nothing_is_told_of_other_tokens(root: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path, "other", ppl_definition=OTHER_TOKENS)
    step = read_step(side(root / "v1"), side(other))
    for found in (step.blocks, step.units, step.tokens):
        assert isinstance(found, Missing) and "different tokens" in found.reason
    candidate = read_step(side(SAMPLE), side(write_comparison(tmp_path)))
    assert isinstance(candidate.units, Missing) and not isinstance(candidate.tokens, Missing)
    assert (candidate.tokens.broken, candidate.tokens.mended) == (0, 0)


def test_models_are_named_by_run_and_model(root: Path, tmp_path: Path) -> None:
    assert split_name("a:b:uniform") == ("a:b", "uniform")
    assert split_name("a:b") == ("a:b", "")
    odd = write_run(tmp_path, "v1:uniform")
    assert open_side(str(odd)).model == "mixed"
    assert open_side(f"{odd}:uniform").model == "uniform"
    assert [each.run.path.name for each in open_sides([str(root)])] == ["v1", "v2"]
    for names, said in (
        ([f"{root}/v1", str(root)], "is given twice"),
        ([f"{root}/v1:candidate"], "has no candidate model"),
        ([f"{root}/nothing"], "holds no run"),
    ):
        with pytest.raises(InputError, match=said):
            open_sides(names)
    change_record(odd, headline={})
    with pytest.raises(InputError, match="has measured nothing yet"):
        open_side(str(odd))


def test_releases_are_of_one_reference_in_the_order_of_time(root: Path, tmp_path: Path) -> None:
    moved = side(write_release(tmp_path, "v0", 1.0, day=3, model="/elsewhere"))
    source = {**moved.record.to_json()["source"], "hashes": {"model.safetensors": "1"}}
    other = side(write_release(tmp_path, "other", 1.0, day=4, model="org/other", source=source))
    sides = [side(root / "v2"), side(root / "v1"), moved, other]
    groups = group_by_model(sides)
    assert list(groups) == ["org/other", "/elsewhere"]
    assert [each.run.path.name for each in groups["/elsewhere"]] == ["v1", "v2", "v0"]
    name = sides[0].record.model
    assert choose_releases(sides, name) == groups["/elsewhere"]
    assert [each.run.path.name for each in choose_releases(sides)] == ["v1", "v2", "v0", "other"]
    with pytest.raises(InputError, match="no run is of nothing"):
        choose_releases(sides, "nothing")
    with pytest.raises(InputError, match="several models"):
        choose_releases(sides, one_model=True)
