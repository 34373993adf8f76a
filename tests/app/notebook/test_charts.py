"""Charts by name: the very figures of the pages, and every chart that there is."""

import ast
import inspect
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dash import dcc

import awqscope
from awqscope import InputError, Run, read_run
from awqscope.app.dashboard.server import render_parts
from awqscope.app.dashboard.urls import read_address
from awqscope.app.notebook.charts import CHARTS
from awqscope.app.store import Store
from awqscope.app.words.compared.trend import DRAWN
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.study import Study
from tests.help import alternatives, calibrated, caused, explained, int8, probed, tasks
from tests.help.root import ROOT
from tests.help.runs import SAMPLE, write_comparison, write_run
from tests.help.weighed import keep_weights

FIGURES = ROOT / "app" / "figures"
# Address -> the charts there, in order, with their options.
Asked = tuple[str, dict[str, Any]]
PAGES: dict[str, list[Asked]] = {
    "/run/sample": [
        ("blocks", {}),
        ("units", {}),
        ("calibration", {}),
        ("calibration_agreement", {}),
        ("calibration_texts", {}),
        ("alternatives", {}),
        ("int8", {}),
        ("tasks", {}),
    ],
    "/run/sample?metric=delta_ppl&scale=log": [("blocks", {"metric": "delta_ppl", "scale": "log"})],
    "/run/sample/block/5": [
        *((f"why_{part}", {"block": 5}) for part in ("linears", "growth", "heads", "attention")),
        ("why_channels", {"block": 5}),
        ("why_channels", {"block": 5, "linear": "self_attn.v_proj"}),
        *((name, {"block": 5}) for name in ("probe", "histogram", "channels", "depth")),
    ],
    "/run/sample/block/0?site=output": [
        ("histogram", {"block": 0, "site": "output"}),
        ("channels", {"block": 0, "site": "output"}),
        ("depth", {"block": 0}),
    ],
    "/run/sample/tokens": [("token", {})],
    "/run/sample/recipe": [("recipes", {})],
    "/run/sample/explain": [("explained_blocks", {}), ("explained_tokens", {})],
    "/run/sample/block/5/weights": [
        *((f"weights_{part}", {"block": 5}) for part in ("channels", "clips", "codes", "group")),
    ],
    "/run/sample/block/5/weights?linear=self_attn.v_proj&group=5%3A0": [
        ("weights_codes", {"block": 5, "linear": "self_attn.v_proj"}),
        ("weights_clips", {"block": 5, "linear": "self_attn.v_proj"}),
        ("weights_channels", {"block": 5, "linear": "self_attn.v_proj"}),
        ("weights_group", {"block": 5, "linear": "self_attn.v_proj", "group": "5:0"}),
    ],
    "/run/sample/block/4/weights?linear=self_attn.v_proj": [
        (f"search_{part}", {"block": 4, "linear": "self_attn.v_proj"})
        for part in ("scales", "limits")
    ],
    "/compare?runs=sample/candidate&axis=log": [
        ("sizes", {"others": ["candidate"]}),
        ("blocks_among", {"others": ["candidate"], "scale": "log"}),
    ],
    "/trend?runs=sample/candidate": [
        ("releases", {"others": ["candidate"], "measure": measure}) for measure in DRAWN
    ],
    "/compare?a=sample&b=candidate": [("differences", {"other": "candidate"})],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample with an answer to every study and a prompt explained, and a comparison."""
    root = tmp_path_factory.mktemp("runs")
    path = write_run(root)
    shutil.copytree(SAMPLE / "awq", path / "awq")
    write_comparison(root)
    keep_weights(path)
    answers = {
        "why-5": caused.make_answer(),
        "probe-5": probed.make_probe().to_json(),
        "calibrate": calibrated.make_advice().to_json(),
        "alternatives": alternatives.make_usual().to_json(),
        "activations": int8.make_activations(int8.make_measured("int8", [5])).to_json(),
    }
    for name, answer in answers.items():
        study = Study(RunDirectory(path), name, {})
        with study.hold():
            study.keep(answer)
    tasks.keep_tasks(path, tasks.make_task(**tasks.turn(200, 8, 3)))
    (path / "explained").mkdir()
    (path / "explained" / "1.json").write_text(json.dumps(explained.make_asked()))
    return root


def find_graphs(part: Any) -> Iterator[dcc.Graph]:
    """Every chart of a layout, in order."""
    if isinstance(part, dcc.Graph):
        yield part
    elif isinstance(part, (list, tuple)):
        for each in part:
            yield from find_graphs(each)
    elif hasattr(part, "children"):
        yield from find_graphs(part.children)


def to_plain(figure: Any) -> dict[str, Any]:
    """A figure without what a page gives it: its ground, and the star of a recipe made by hand."""
    plain = json.loads(figure.to_json())
    plain["layout"].pop("paper_bgcolor")
    plain["data"] = [trace for trace in plain["data"] if trace.get("name") != "yours, predicted"]
    return plain


@pytest.mark.parametrize("address", PAGES)
def test_a_figure_is_the_page_s(runs: Path, address: str) -> None:
    path, _, search = address.partition("?")
    parts = render_parts(Store(runs), read_address(path, f"?{search}" if search else ""), None)
    shown = [to_plain(graph.figure) for graph in find_graphs(parts)]
    run, wanted = read_run(runs / "sample"), PAGES[address]
    for name, options in wanted:
        given = dict(options)
        given |= {"other": runs / given["other"]} if "other" in given else {}
        given |= {"others": [runs / each for each in given["others"]]} if "others" in given else {}
        figure = run.figure(name, **given)
        assert figure.layout.paper_bgcolor == "white"
        assert to_plain(figure) in shown, (name, options)
    # With these the page shows charts besides that other addresses hold, or other runs' own.
    if not any(option in search for option in ("metric", "site", "axis")):
        assert len(shown) == len(wanted)


def test_every_chart_has_a_name() -> None:
    """Whatever app/figures draws can be had by a name, and every name is held to a page above."""
    drawn = {
        node.name
        for path in FIGURES.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("draw_")
    }
    modules = {inspect.getsourcefile(chart.draw) for chart in CHARTS.values()}
    used = {
        node.id
        for file in modules
        for node in ast.walk(ast.parse(Path(str(file)).read_text(encoding="utf-8")))
        if isinstance(node, ast.Name)
    }
    assert drawn - used == set() and len(drawn) > 15
    assert {name for asked in PAGES.values() for name, _ in asked} == set(CHARTS)


def test_figures_are_listed_with_what_they_take(runs: Path) -> None:
    listed = read_run(runs / "sample").figures()
    assert list(listed.index) == list(CHARTS) and listed["exists"].all()
    assert listed.loc["blocks", "options"] == "metric='kl', scale='linear'"
    assert listed.loc["histogram", "options"] == "block, site=None"
    bare = read_run(SAMPLE).figures()
    assert not bare.loc["why_heads", "exists"] and bare.loc["blocks", "exists"]
    assert listed["title"].is_unique


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("block", {}, "there is no figure 'block': did you mean 'blocks'?"),
        ("zzz", {}, "run.figures"),
        ("blocks", {"metrik": "kl"}, "has no option 'metrik': it takes metric, scale"),
        ("units", {"bits": 4}, "it takes none"),
        ("blocks", {"metric": "ppl"}, "no metric 'ppl' here: give one of kl, delta_ppl"),
        ("depth", {}, "needs block: give block="),
        ("depth", {"block": 8}, "no block 8 here: give one of 0 to 7"),
        ("histogram", {"block": 5, "site": "x"}, "no site 'x' here: give one of qkv, o"),
        ("token", {"window": 1}, "no blame by block of window 1"),
        ("token", {"window": 40}, "no window 40"),
        ("why_growth", {"block": 5}, "ask for it with awqscope why .*sample 5"),
        ("probe", {"block": 2}, "awqscope probe .*sample 2"),
        ("calibration", {}, "awqscope calibrate"),
        ("explained_blocks", {}, "keeps no explained prompt"),
        ("differences", {"other": SAMPLE, "metric": "delta_ppl"}, "not measured of the mixed"),
    ],
)
def test_what_cannot_be_drawn_is_said(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_run(SAMPLE).figure(name, **options)


def test_a_comparison_has_no_recipes(runs: Path) -> None:
    run = read_run(runs / "candidate")
    assert run.figure("blocks").data
    for name in ("units", "recipes"):
        with pytest.raises(InputError, match="is a comparison"):
            run.figure(name)


def test_a_figure_is_saved_with_all_that_it_needs(tmp_path: Path) -> None:
    run = Run(SAMPLE)
    made = run.save_figure("blocks", tmp_path / "blocks.html", scale="log")
    page = made.read_text(encoding="utf-8")
    assert len(page) > 3e6 and 'src="http' not in page
    for file, said in (
        (tmp_path / "blocks.pptx", "end it in .html, .svg, .png, .pdf"),
        (tmp_path / "no" / "blocks.html", "is no directory"),
    ):
        with pytest.raises(InputError, match=said):
            run.save_figure("blocks", file)
    assert {path.name for path in tmp_path.iterdir()} == {"blocks.html"}


def test_what_draws_is_asked_for_where_it_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(InputError, match=r"pip install 'awqscope\[plots\]'"):
        awqscope.read_run(SAMPLE).save_figure("blocks", tmp_path / "blocks.svg")
    assert not list(tmp_path.iterdir())


@pytest.mark.browser
@pytest.mark.parametrize(
    ("suffix", "begins"), [(".svg", b"<svg"), (".png", b"\x89PNG"), (".pdf", b"%PDF")]
)
def test_a_figure_is_drawn_to_a_file(tmp_path: Path, suffix: str, begins: bytes) -> None:
    pytest.importorskip("kaleido")
    made = awqscope.read_run(SAMPLE).save_figure("blocks", tmp_path / f"blocks{suffix}")
    assert made.read_bytes().startswith(begins) and made.stat().st_size > 5000
