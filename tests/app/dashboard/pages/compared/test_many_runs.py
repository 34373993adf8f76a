"""The pages of many runs and of one model over its releases, as they are sent to a browser."""

from pathlib import Path
from typing import Any

import pytest

from awqscope.app.dashboard import pairs
from awqscope.app.dashboard.pages.compared.many_runs import follow_choice, read_chosen
from awqscope.app.dashboard.pages.compared.trend import follow_releases, read_releases
from awqscope.app.dashboard.urls import Page, link, read_address
from awqscope.app.figures.compared.many import draw_pareto, draw_small, has_room, share_scale
from awqscope.app.figures.frame import BLUE, ORANGE
from awqscope.app.store import Store
from awqscope.diagnose.compared.ranking import MOST_RANKED
from tests.app.dashboard.test_server import find_links, find_type, make_client, read_text, show
from tests.help.releases import OTHER_TOKENS, raise_damage, write_release
from tests.help.runs import SAMPLE, change_record, write_comparison, write_run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_release(folder, "v1", 1.0, day=1)
    raise_damage(write_release(folder, "v2", 1.3, day=2), 2, "2.down", 6)
    write_comparison(folder, "theirs")
    write_run(folder, "other-text", ppl_definition=OTHER_TOKENS)
    return folder


def page_at(address: str) -> Page:
    path, _, search = address.partition("?")
    return read_address(path, search)


def show_at(root: Path, address: str) -> Any:
    path, _, search = address.partition("?")
    return show(make_client(root), path, f"?{search}" if search else "")[0]


def test_the_page_says_which_to_ship_and_what_cannot_be_held_against_it(root: Path) -> None:
    address = link("compare", runs="v2/v1/theirs/other-text/v1:uniform/gone")
    page = show_at(root, address)
    said = read_text(page)
    assert "loses least: KL" in said and "gone is not here any more" in said
    assert "other-text was measured on other tokens than" in said
    models, differences, sizes, _ = find_type(page, "Table")
    names = [row[0]["text"] for row in models["rows"]]
    assert names[-2:] == ["v1:uniform", "other-text"] and len(names) == 5
    marks = {row[0]["text"]: row[1]["text"] for row in models["rows"]}
    assert marks["v1:uniform"] == "✕ May not ship"
    verdicts = {row[0]: row[5] for row in differences["rows"]}
    assert verdicts[names[0]] == "the baseline" and verdicts["v1:uniform"] == "surely worse"
    # One that is the baseline's own model is said to be, whatever it was measured on.
    assert verdicts["other-text"] in ("the same model", "measured on other tokens")
    assert {row[0] for row in sizes["rows"]} == set(names[:-1])
    charts = [props["figure"] for props in find_type(page, "Graph")]
    assert len(charts) == 1 + len(names)
    ranges = {tuple(chart["layout"]["yaxis"]["range"]) for chart in charts[1:]}
    assert len(ranges) == 1
    ways = find_links(page)
    assert any(way.startswith("/compare?a=") and "model_b=uniform" in way for way in ways)
    held = read_text(show_at(root, f"{address}&baseline=v1%3Auniform"))
    assert "Each less v1:uniform, paired by token" in held


def test_the_choice_is_the_addresss_and_no_more_than_twelve(root: Path, tmp_path: Path) -> None:
    store = Store(root)
    page = page_at(link("compare", runs="v1/v1:mixed/theirs:uniform/nothing:uniform"))
    chosen = read_chosen(store, page)
    assert list(chosen.sides) == ["v1", "theirs"]
    assert chosen.refused == ["nothing is not here any more"]
    shown = list(chosen.sides)
    wanted = follow_choice(page, shown, ["v1", "v2"], "v2")
    assert wanted == {"runs": "v1/v2", "baseline": "v2", "axis": "linear"}
    both = ["v1", "v2"]
    assert follow_choice(page_at(link("compare", **wanted)), both, both, "v2") is None
    assert follow_choice(page, shown, ["v1"], "v2") == {
        "runs": "v1",
        "baseline": "",
        "axis": "linear",
    }
    # What is left out stays in the address, and is said.
    assert follow_choice(page, shown, shown, "") is None
    odd = page_at(link("compare", runs="v1/v2", baseline="zzz"))
    assert "zzz is not among them" in read_text(show_at(root, link("compare", **odd.options)))
    assert follow_choice(odd, both, both, "") is None
    said = read_text(show_at(root, "/compare"))
    assert "Choose two runs or more" in said
    assert "Run A" in str(show_at(root, "/compare?a=v1"))
    for number in range(MOST_RANKED + 1):
        (tmp_path / f"r{number}").symlink_to(SAMPLE)
    every = "/".join(f"r{number}" for number in range(MOST_RANKED + 1))
    many = read_chosen(Store(tmp_path), page_at(link("compare", runs=every)))
    assert len(many.sides) == MOST_RANKED
    assert many.refused == ["r12 is one too many: 12 are compared at most"]
    change_record(write_run(tmp_path, "bare"), headline={})
    bare = pairs.find_side(Store(tmp_path), "bare")
    assert bare == "bare cannot be compared: It has measured nothing yet."


def test_what_is_kept_is_read_again_once_a_run_changes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path, name)
    store = Store(tmp_path)

    def sides() -> list[Any]:
        return [pairs.find_side(store, name) for name in ("a", "b")]

    first = pairs.pair(store, *sides())
    assert first.same_model and pairs.pair(store, *sides()) is first
    assert pairs.standing(store, sides()[0]) is pairs.standing(store, sides()[0])
    change_record(tmp_path / "b", ppl_definition=OTHER_TOKENS, updated="2027-01-01T00:00:00+00:00")
    assert pairs.pair(store, *sides()).same_tokens is False


def test_a_trend_shows_the_newest_step_first_and_leads_to_the_text(root: Path) -> None:
    page = show_at(root, link("trend", runs="v2/v1"))
    said = read_text(page)
    assert "v2 after v1. Surely worse: KL +" in said
    assert "Blocks newly broken: 2 (+" in said and "Units newly broken: 2.down (+" in said
    ways = find_links(page)
    assert any(way.startswith("/run/v2/tokens?model=mixed&window=") for way in ways)
    assert any(way.startswith("/run/v1/tokens?model=mixed&window=") for way in ways)
    assert len(find_type(page, "Graph")) == 4
    store = Store(root)
    model, sides, left = read_releases(store, page_at("/trend"))
    names = [side.run.path.name for side in sides]
    assert names[:2] == ["v1", "v2"] and set(names[2:]) == {"theirs", "other-text"}
    assert left == []
    every = read_text(show_at(root, "/trend"))
    assert "What changed cannot be told: they were measured on different tokens." in every
    assert "no run is of org/x" in read_text(show_at(root, link("trend", model="org/x")))
    chosen = page_at(link("trend", runs="v1/v2"))
    assert follow_releases(store, chosen, model, ["v1", "v2"]) is None
    assert follow_releases(store, chosen, model, ["v1"]) == {"model": "", "runs": "v1"}
    assert follow_releases(store, chosen, "org/x", ["v1"]) == {"model": "org/x", "runs": ""}


def test_small_charts_share_their_axis_and_dominated_ones_are_hollow() -> None:
    costs = [{0: (0.1, 0.05, 0.2), 1: (0.4, 0.3, 0.5)}, {0: (0.0, 0.0, 0.0), 1: (0.002, 0, 1)}]
    for is_log, least in ((False, 0), (True, -3)):
        scale = share_scale(costs, is_log=is_log)
        figures = [draw_small(each, scale) for each in costs]
        assert [figure.layout.yaxis.range[0] for figure in figures] == [least, least]
        assert figures[0].layout.yaxis.range == figures[1].layout.yaxis.range
        top = figures[0].layout.yaxis.range[1]
        assert (10**top if is_log else top) > 0.4
        assert list(figures[0].data[0].y) == [0.1, 0.4]
    assert not share_scale([{0: (0.0, 0.0, 0.0)}], is_log=True).is_log
    row = {"low": None, "high": None, "is_baseline": False}
    figure = draw_pareto(
        [
            {**row, "name": "small", "bytes": 1e6, "kl": 0.3, "dominated": False},
            {**row, "name": "worse", "bytes": 2e6, "kl": 0.4, "dominated": True},
            {"name": "best", "bytes": 2e6, "kl": 0.1, "low": 0.05, "high": 0.2}
            | {"dominated": False, "is_baseline": True},
        ]
    )
    looks = {
        tuple(trace.text): (trace.name, trace.marker.symbol, trace.marker.color)
        for trace in figure.data[1:]
    }
    assert looks == {
        ("small",): ("no other is as small and loses as little", "circle", BLUE),
        ("worse",): ("dominated: one no larger loses no more", "circle-open", BLUE),
        ("best",): ("the baseline", "diamond", ORANGE),
    }
    assert list(figure.data[0].x) == [1.0, 2.0]
    assert list(figure.data[1].error_y.array) == [0]
    assert list(figure.data[3].error_y.array) == pytest.approx([0.1])
    assert list(figure.data[3].error_y.arrayminus) == pytest.approx([0.05])
    assert not draw_pareto([]).data[0].x and has_room([])


def test_names_that_have_no_room_on_a_phone_are_numbers(tmp_path: Path) -> None:
    row = {"low": None, "high": None, "is_baseline": False, "dominated": False}
    names = [f"release-{at}" for at in range(12)]
    few = [
        {**row, "name": n, "bytes": (1 + at) * 1e6, "kl": 1 - at / 4}
        for at, n in enumerate(names[:3])
    ]
    assert has_room(few)
    assert not has_room([{**few[0], "name": "a-release-of-a-long-name"}, *few[1:]])
    many = [
        {**row, "name": n, "bytes": (1 + at) * 1e6, "kl": 1 - at / 20} for at, n in enumerate(names)
    ]
    assert not has_room(many)
    drawn = draw_pareto(many[::-1], numbered=True).data[1]
    assert list(drawn.text) == [str(at) for at in range(1, 13)]
    assert list(drawn.customdata) == names
    # Those at one place take a corner each.
    same = [{**few[0], "name": n} for n in names[:4]]
    assert len(set(draw_pareto(same, numbered=True).data[1].textposition)) == 4
    for at, scale in enumerate((0.5, 0.7, 0.9, 1.1)):
        write_release(tmp_path, f"a-release-of-a-long-name-{at}", scale, day=at + 1)
    runs = "/".join(f"a-release-of-a-long-name-{at}" for at in range(4))
    page = show_at(tmp_path, link("compare", runs=runs))
    (key,) = find_type(page, "Ol")
    listed = [entry["props"]["children"] for entry in key["children"]]
    assert sorted(listed) == sorted(runs.split("/"))
    points = find_type(page, "Graph")[0]["figure"]["data"][1:]
    shown = {
        name: label
        for trace in points
        for name, label in zip(trace["customdata"], trace["text"], strict=True)
    }
    assert [shown[name] for name in listed] == ["1", "2", "3", "4"]
