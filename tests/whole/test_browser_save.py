"""Charts saved as images and tables as CSV: named by what they are, whole, and safe to open."""

import csv
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from awqscope.app.words.predict import unit_kl
from tests.app.dashboard.test_server import find_type, make_client, show
from tests.help.browsing import copy_sample
from tests.help.caused import make_answer, make_carrier, make_linear
from tests.help.saved import list_saved

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")

SVG = "{http://www.w3.org/2000/svg}"


def save(page: "sync_api.Page", button: "sync_api.Locator") -> tuple[str, bytes]:
    """The name and content of what a button saves, pressed from the keyboard."""
    button.focus()
    with page.expect_download() as found:
        page.keyboard.press("Enter")
    return found.value.suggested_filename, Path(found.value.path()).read_bytes()


def read_csv(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def test_a_chart_is_saved_as_it_is_shown(page: "sync_api.Page") -> None:
    page.emulate_media(color_scheme="dark")
    page.goto("/run/demo/block/5")
    chart = page.get_by_role("figure", name="SQNR by block")
    name, content = save(page, chart.get_by_role("button", name="Save as SVG"))
    assert name == "demo-Block-5-SQNR-by-block.svg"
    drawing = ElementTree.fromstring(content)
    # Dark letters on white, whatever the page's theme.
    grounds = [each.attrib.get("style", "") for each in drawing.iter(f"{SVG}rect")]
    assert drawing.attrib["style"].replace(" ", "").endswith("background:rgb(255,255,255);") or any(
        "rgb(255, 255, 255)" in ground for ground in grounds
    )
    letters = [each.attrib.get("style", "") for each in drawing.iter(f"{SVG}text")]
    assert letters and all("rgb(26, 32, 41)" in style for style in letters)
    name, content = save(page, chart.get_by_role("button", name="Save as PNG"))
    assert name == "demo-Block-5-SQNR-by-block.png" and content.startswith(b"\x89PNG")


def test_a_table_is_saved_with_all_rows_and_digits(page: "sync_api.Page", runs: Path) -> None:
    page.goto("/run/demo")
    page.locator("main .chart .main-svg").first.wait_for()
    for folded in page.locator("summary", has_text="The same as a table").all():
        folded.click()
    damage, units = (page.get_by_role("button", name="Save as CSV").nth(at) for at in (0, 1))
    name, content = save(page, damage)
    assert name == "demo-Damage-by-block.csv"
    rows = pq.read_table(runs / "demo" / "blocks.parquet").to_pylist()
    isolated = [row for row in rows if row["view"] == "isolated"]
    found = read_csv(content)
    for line, row in zip(found, isolated, strict=True):
        keys = ("KL alone", "95% low", "95% high")
        assert [float(line[key]) for key in keys] == [row["kl"], row["kl_low"], row["kl_high"]]
    # More rows than are shown at once.
    name, content = save(page, units)
    rows = pq.read_table(runs / "demo" / "units.parquet").to_pylist()
    low = {row["unit"]: row for row in rows if row["bits"] == 4}
    found = read_csv(content)
    sync_api.expect(page.locator(".turns [role=status]").first).to_have_text("1 to 30 of 32")
    assert len(found) == len(low) == 32
    assert {line["Unit"]: float(line["KL at 4 bits"]) for line in found} == {
        unit: unit_kl(row) for unit, row in low.items()
    }
    assert all(int(line["Weights"]) == low[line["Unit"]]["bytes"] for line in found)


@pytest.mark.parametrize(
    ("path", "search"), [("/run/demo", ""), ("/compare", "?runs=demo:mixed/demo:uniform")]
)
def test_every_table_is_saved_with_numbers_and_bounds_apart(
    page: "sync_api.Page", runs: Path, path: str, search: str
) -> None:
    tables = find_type(show(make_client(runs), path, search)[0], "Table")
    page.goto(f"{path}{search}")
    page.locator("main .chart .main-svg").first.wait_for()
    for folded in page.locator("main summary").all():
        folded.click()
    buttons = page.locator("main").get_by_role("button", name="Save as CSV")
    sync_api.expect(buttons).to_have_count(len(tables))
    for button, table in zip(buttons.all(), tables, strict=True):
        _, content = save(page, button)
        heads, lines = list_saved(table)
        found = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
        assert found[0] == heads
        for cells, line in zip(found[1:], lines, strict=True):
            assert [read_like(cell, field) for cell, field in zip(cells, line, strict=True)] == [
                "" if field is None else field for field in line
            ]


def read_like(cell: str, field: object) -> object:
    """A saved cell as the field that it is of: a number, or text."""
    return float(cell) if isinstance(field, int | float) else cell.removeprefix("'")


def test_no_cell_is_a_formula(page: "sync_api.Page", runs: Path) -> None:
    """A token may be any text, and a spreadsheet carries out what begins like a formula."""
    odd = ['=HYPERLINK("http://x","y")', "+1+1", "-2", "@a", '"quoted", and\nmore', "-0.5e3"]
    carriers = [make_carrier(at, text, "word") for at, text in enumerate(odd)]
    linear = make_linear("mlp.down_proj", "down", 0.7, carriers=carriers)
    folder = runs / "demo" / "studies"
    folder.mkdir()
    record = json.loads((runs / "demo" / "run.json").read_text())
    kept = {"schema": 1, "made": "2026-01-01T00:00:00+00:00"}
    asked = {"windows": None, "run": record["created"], "schema": 1}
    kept |= {"asked": asked, "answer": make_answer(linears=[linear])}
    (folder / "why-5.json").write_text(json.dumps(kept))
    page.goto("/run/demo/block/5")
    part = page.locator(".card", has=page.get_by_role("heading", name="Massive activations"))
    part.locator("table").last.wait_for()
    name, content = save(page, part.get_by_role("button", name="Save as CSV").last)
    assert name == "demo-Block-5-Why.csv"
    tokens = [line["Token"] for line in read_csv(content)]
    assert tokens[0].startswith("'=HYPERLINK") and tokens[1].startswith("'+1+1")
    assert tokens[2] == "-2" and tokens[3] == "'@a" and tokens[4] == '"quoted",·and⏎more'
    assert tokens[5] == "-0.5e3"


def test_grids_are_saved_and_nothing_of_it_is_printed(page: "sync_api.Page", runs: Path) -> None:
    copy_sample(runs, "other")
    page.goto("/")
    page.locator(".ag-center-cols-container .ag-row").first.wait_for()
    button = page.get_by_role("button", name="Save as CSV")
    name, content = save(page, button)
    found = read_csv(content)
    assert name == "Runs-runs.csv" and {line["Run"] for line in found} == {"demo", "other"}
    record = json.loads((runs / "demo" / "run.json").read_text())
    assert float(found[0]["KL mixed"]) == record["headline"]["kl"]["mixed"]
    assert int(found[0]["Bytes"]) == record["headline"]["bytes"]["mixed"]
    page.emulate_media(media="print")
    sync_api.expect(button).to_be_hidden()
    page.emulate_media(media="screen")


def test_widths_are_saved_as_they_are_chosen(page: "sync_api.Page", runs: Path) -> None:
    page.goto("/run/demo/recipe?bits=5.qkv:4")
    page.get_by_role("grid", name="Widths, blocks by units").wait_for()
    button = page.get_by_role("button", name="Save as CSV").last
    name, content = save(page, button)
    assert name == "demo-Recipe-widths.csv"
    rows = pq.read_table(runs / "demo" / "units.parquet").to_pylist()
    known = {(row["unit"], str(row["bits"])): row for row in rows}
    found = {line["Unit"]: line for line in read_csv(content)}
    assert len(found) == 32 and {unit: line["Bits"] for unit, line in found.items()} == {
        unit: "8" if unit == "5.o" else "4" for unit in found
    }
    for unit, line in found.items():
        row = known[unit, line["Bits"]]
        assert line["Block"] == unit.split(".")[0] and int(line["Bytes"]) == row["bytes"]
        # The page holds eight digits of it.
        assert float(line["KL"]) == pytest.approx(unit_kl(row), rel=1e-7)
    # What is not shown is not saved.
    page.get_by_role("checkbox", name="Only blocks with units not at 4 bits").check()
    _, content = save(page, button)
    assert {line["Block"] for line in read_csv(content)} == {"5"}
