"""The page of a block's weights: what a look has found, and what the run holds without one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from plotly.utils import PlotlyJSONEncoder

from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.jobs.studies import KINDS, study_command
from awqscope.app.dashboard.pages import block
from awqscope.app.dashboard.pages.weights import layout
from awqscope.app.dashboard.shell import is_found, write_title
from awqscope.app.dashboard.urls import Page, link, read_address
from awqscope.app.store import Store
from tests.help.caused import keep_causes
from tests.help.runs import SAMPLE, write_comparison, write_run
from tests.help.weighed import keep_weights, make_weights


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The sample with its searches."""
    shutil.copytree(SAMPLE / "awq", write_run(tmp_path) / "awq")
    return Store(tmp_path)


def show(store: Store, name: str = "sample", number: int = 5, **options: str) -> str:
    page = Page("weights", name, number, options)
    return json.dumps(layout(store, page, None), cls=PlotlyJSONEncoder, ensure_ascii=False)


def keep(store: Store, answer: dict[str, Any]) -> None:
    keep_weights(store.find("sample").path, answer)


def test_it_has_an_address_and_a_title(store: Store) -> None:
    address = link("weights", "sample", 5, linear="mlp.down_proj", group="3:1")
    assert address == "/run/sample/block/5/weights?linear=mlp.down_proj&group=3%3A1"
    page = read_address(*address.split("?"))
    assert (page.name, page.block, page.option("group")) == ("weights", 5, "3:1")
    assert write_title(store, page, False) == "Weights of block 5 · sample · awqscope"
    assert is_found(store, page, False)
    assert not is_found(store, Page("weights", "sample", 8), False)


def test_the_block_page_leads_there(store: Store) -> None:
    shown = block.layout(store, Page("block", "sample", 5), None)
    text = json.dumps(shown, cls=PlotlyJSONEncoder)
    assert "/run/sample/block/5/weights?unit=qkv" in text
    assert "/run/sample/block/5/weights?linear=self_attn.o_proj" in text


def test_what_a_look_found_is_shown(store: Store) -> None:
    keep(store, make_weights())
    shown = show(store)
    assert "5.down: mlp.down_proj" in shown and "is rounded worst" in shown
    assert "Of the output's error" not in shown
    shown = show(store, linear="self_attn.v_proj", group="5:0")
    assert "Row 5, group 0: values of key-value head 1 (of heads 2–3)" in shown
    assert "← Group before" in shown and "Group after →" in shown
    shown = show(store, unit="qkv")
    assert "5.qkv: self_attn.v_proj" in shown and "← Group before" not in shown


def test_what_an_address_asks_in_vain_is_said(store: Store) -> None:
    keep(store, make_weights())
    shown = show(store, linear="none")
    assert "There is no linear none in this block: mlp.down_proj is shown." in shown
    assert "There is no unit 5.zz: " in show(store, unit="zz")
    shown = show(store, linear="mlp.down_proj", group="7:7")
    assert "Group 7:7 of mlp.down_proj is none of those that are kept" in shown
    assert "No block 9 here" in show(store, number=9)


def test_the_error_of_the_output_is_beside_it_where_it_was_measured(store: Store) -> None:
    keep(store, make_weights())
    keep_causes(store.find("sample").path)
    shown = show(store, linear="self_attn.v_proj")
    assert "Of the output's error, of its heads" in shown and "50.0%" in shown
    # Of channel 2 the half is a third as much as of channel 0.
    assert "16.67%" in shown


def test_linears_that_are_told_briefly_say_so(store: Store) -> None:
    keep(store, make_weights(brief=["mlp.down_proj"]))
    shown = show(store)
    assert "this is none of them" in shown and "Worst weight groups" not in shown


def test_without_a_look_the_run_tells_what_it_holds(store: Store) -> None:
    shown = show(store, linear="mlp.up_proj")
    assert "5.gate_up: mlp.up_proj" in shown
    assert "AWQ multiplies input channel" in shown and "groups keeps at" in shown
    assert "AWQ does not scale its inputs." in show(store, unit="o")
    shutil.rmtree(store.find("sample").path / "awq")
    shown = show(store)
    assert "does not hold its AWQ searches" in shown and "Worst weight groups" in shown


def test_where_the_model_has_moved_it_is_asked_for(tmp_path: Path) -> None:
    write_run(tmp_path, model="/nowhere/model")
    store = Store(tmp_path)
    page = Page("weights", "sample", 5)
    parts = layout(store, page, Jobs(store))
    shown = json.dumps(parts, cls=PlotlyJSONEncoder, ensure_ascii=False)
    assert "The model is not here any more" in shown and "Directory of the model" in shown


def test_an_answer_of_another_version_is_looked_at_again(store: Store) -> None:
    keep(store, {"block": 5})
    assert "What the run itself holds" in show(store)


def test_of_a_comparison_what_it_holds_is_shown(tmp_path: Path) -> None:
    path = write_comparison(tmp_path)
    shown = show(Store(tmp_path), path.name, linear="self_attn.o_proj")
    assert "5.o: self_attn.o_proj" in shown and "Worst weight groups" in shown
    assert "Its codes and scales are not read here." in shown and '"Scales"' not in shown
    (path / "weights.parquet").unlink()
    assert "scales were folded into its norms" in show(Store(tmp_path), path.name)


def test_the_button_becomes_the_command() -> None:
    command = study_command(KINDS["weights"], "/runs/a", 5, {}, None)
    assert command[-4:] == ["weights", "--", "/runs/a", "5"]


def test_a_unit_that_the_run_does_not_have_is_said(store: Store) -> None:
    assert "The run holds nothing of a unit 5.zz: " in show(store, unit="zz")
    assert "holds nothing of a unit" not in show(store, unit="qkv")
