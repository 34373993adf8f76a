"""Every table of every page is saved with numbers as the run's files have them, each in a column of
its own."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from flask.testing import FlaskClient
from plotly.utils import PlotlyJSONEncoder

from awqscope.app.dashboard.jobs.plans import Planned
from awqscope.app.dashboard.sections.preview import show_plan
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.study import Study
from tests.app.dashboard.test_server import find_type, make_client, show
from tests.help.alternatives import make_usual
from tests.help.calibrated import make_advice
from tests.help.caused import keep_causes
from tests.help.explained import make_asked
from tests.help.int8 import make_activations
from tests.help.probed import keep_probe, make_probe
from tests.help.releases import raise_damage, write_release
from tests.help.root import ROOT
from tests.help.runs import change_record, cut_texts, write_comparison, write_run
from tests.help.saved import Row, list_saved, save_table
from tests.help.tasks import keep_tasks, make_task, turn
from tests.help.weighed import keep_weights

STUDIES = {"alternatives": make_usual, "calibrate": make_advice, "activations": make_activations}
RUNS = ("sample", "smollm2", "texts", "candidate", "asked")
VIEWS = ("", "/tokens", "/recipe", "/explain", "/block/0", "/block/5", "/block/5/weights")
SEVERAL = "?runs=sample:mixed/mended:mixed/texts/candidate/sample:uniform"
ADDRESSES = (
    *((f"/run/{run}{view}", "") for run in RUNS for view in VIEWS),
    ("/run/sample", "?metric=delta_ppl"),
    ("/run/texts/tokens", "?which=changed"),
    ("/compare", SEVERAL),
    ("/compare", "?a=sample&b=mended"),
    ("/compare", "?a=sample&b=mended&measure=delta_ppl&model_a=uniform&model_b=uniform"),
    ("/trend", "?runs=sample/mended/worse"),
)
NUMBER = r"[+−-]?\d+(,\d{3})*(\.\d+)?(e[+−-]?\d+)?"
UNIT = r"(\s?(%|bytes?|[kMG]i?B|dB|points|s|min|h)|×)"
# An interval in brackets; a number with its unit; a number that text follows at once; a number that
# was written out, as whole ones without commas are not.
FAULTS = {
    "an interval": re.compile(r"\[[+−-]?[\d∞]"),
    "a unit": re.compile(rf"^{NUMBER}{UNIT}(\W|$)|(^|[\s(]){NUMBER}{UNIT}\)?$"),
    "glued": re.compile(rf"^([≤≥]\s?\d|{NUMBER}[A-Za-z(\[])"),
    "written out": re.compile(rf"^(?!\d+$){NUMBER}$"),
}
# What lines are called, text of models and files, and sentences; some only beside a heading.
VERBATIM = {"": "", "How": "", "Passage": "", "Prompt": "", "Seen": "", "SHA-256": "", "Token": ""}
VERBATIM |= {"Next token": "", "What to do": "", "With": "", "A": "Setting", "B": "Setting"}
VERBATIM |= {"16-bit": "16-bit: probability", "Uniform": "16-bit: probability"}
# A table in which all that is saved is text.
PLAIN = {"columns": ["Value"], "heads": [], "values": []}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with all that a page can show."""
    root = tmp_path_factory.mktemp("runs")
    write_run(root)
    shutil.copytree(ROOT / "reports" / "sample-smollm2", root / "smollm2")
    candidate = write_comparison(root)
    measures, ends = ("kl", "delta_nll", "delta_ppl"), ("", "_low", "_high")
    numbers = {f"{key}{end}": 0.125 for key in measures for end in ends}
    place = {"place": "head", "restored_kl": 0.25, "top1_agreement": 0.5, **numbers}
    change_record(candidate, places=[place])
    cut_texts(write_run(root, "texts"), first=10, second=12)
    write_release(root, "mended", 0.5, day=2)
    raise_damage(write_release(root, "worse", 2.0, day=3), 2, "2.qkv", 100.0)
    asked = write_run(root, "asked")
    for name, make in STUDIES.items():
        study = Study(RunDirectory(asked), name, {})
        with study.hold():
            study.keep(json.loads(json.dumps(make().to_json())))
    keep_causes(asked)
    keep_weights(asked)
    keep_probe(RunDirectory(asked), make_probe())
    keep_tasks(asked, make_task("sums", **turn(100, 9, 2)))
    (asked / "explained").mkdir()
    (asked / "explained" / "one.json").write_text(json.dumps(make_asked()), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def client(root: Path) -> FlaskClient:
    return make_client(root)


def find_tables(client: FlaskClient, path: str, search: str = "") -> list[dict[str, Any]]:
    return find_type(show(client, path, search)[0], "Table")


def save(client: FlaskClient, heading: str, path: str, search: str = "") -> list[Row]:
    """The first table of a page that is saved with a heading."""
    found = find_tables(client, path, search)
    return next(save_table(each) for each in found if heading in list_saved(each)[0])


def list_faults(table: dict[str, Any]) -> Iterator[str]:
    heads, lines = list_saved(table)
    for line in lines:
        for head, cell in zip(heads, line, strict=True):
            if not isinstance(cell, str) or VERBATIM.get(head, "nowhere") in ("", *heads):
                continue
            for fault, pattern in FAULTS.items():
                if pattern.search(cell):
                    yield f"{fault} in {head!r}: {cell!r}"


@pytest.mark.parametrize(
    "cell",
    [
        "64.315+0.488 [+0.227, +0.773]",
        "0.01179[0.01123, 0.01234]",
        "5.01 MB",
        "+341.4 kB",
        "98.1%",
        "1,530",
        "≤ 1.03",
        "2.6×",
        "·-- 45.1%",
        "12 min",
    ],
)
def test_what_is_no_number_is_seen(cell: str) -> None:
    assert list(list_faults(PLAIN | {"rows": [[cell]]}))


@pytest.mark.parametrize("cell", ["5.o", "12", "0 (of heads 0–1)", "window 29, token 7", "int8"])
def test_names_are_no_numbers(cell: str) -> None:
    assert list(list_faults(PLAIN | {"rows": [[cell]]})) == []


@pytest.mark.parametrize(("path", "search"), ADDRESSES, ids=map("".join, ADDRESSES))
def test_no_number_is_saved_as_text(client: FlaskClient, path: str, search: str) -> None:
    tables = find_tables(client, path, search)
    assert tables or path.endswith(("/explain", "/recipe", "/block/0/weights"))
    assert "\n".join(fault for each in tables for fault in list_faults(each)) == ""
    for each in tables:
        heads, _ = list_saved(each)
        assert not any("[" in head for head in heads)
        named = [head for head in heads if head]
        assert len(named) == len(set(named))


def test_costs_are_the_table_s(client: FlaskClient, root: Path) -> None:
    rows = {
        ", ".join(row["units"]): row
        for row in pq.read_table(root / "sample" / "promotions.parquet").to_pylist()
        if row["block"] == 5
    }
    found = save(client, "Costs", "/run/sample/block/5")
    assert rows and len(found) == len(rows)
    for line in found:
        row = rows[line["At 8 bits"]]
        assert line["Costs"] == row["extra_bytes"]
        assert (line["KL of the model"], line["Given back"]) == (row["kl"], row["given_back"])


def test_channels_and_groups_are_the_table_s(client: FlaskClient, root: Path) -> None:
    rows = pq.read_table(root / "smollm2" / "weights.parquet").to_pylist()
    known = {row["linear"]: row for row in rows if row["block"] == 5}
    for line in save(client, "Worst group 1: error", "/run/smollm2/block/5"):
        row = known[line["Linear"]]
        assert line["‖ΔW‖ / ‖W‖"] == row["relative_error"]
        found = [line[f"Worst group {at}: error"] for at in (1, 2, 3)]
        assert found == row["worst_errors"][:3]
    rows = pq.read_table(root / "smollm2" / "activations.parquet").to_pylist()
    here = [row for row in rows if row["block"] == 5 and row["model"] == "reference"]
    times = [line["Of the median"] for line in save(client, "Channel", "/run/smollm2/block/5")]
    assert times in [
        [value / row["channel_median"] for value in row["outlier_values"]] for row in here
    ]


def test_what_models_expected_is_the_table_s(client: FlaskClient, root: Path) -> None:
    found = save(client, "16-bit: probability", "/run/sample/tokens")
    rows = pq.read_table(root / "sample" / "tokens.parquet").to_pylist()
    tops = [row["top_reference"] for row in rows if row["top_reference"]]
    expected = [line["16-bit: probability"] for line in found]
    assert expected in [[top["probability"] for top in each] for each in tops]


def test_several_models_have_numbers_and_bounds_apart(client: FlaskClient, root: Path) -> None:
    headline = json.loads((root / "sample" / "run.json").read_text(encoding="utf-8"))["headline"]
    lines = {line["Model"]: line for line in save(client, "KL, worst text", "/compare", SEVERAL)}
    mixed = lines["sample"]
    assert mixed["Size"] == headline["bytes"]["mixed"] and mixed["PPL"] == headline["ppl"]["mixed"]
    assert mixed["ΔPPL"] == pytest.approx(headline["ppl"]["mixed"] - headline["ppl"]["reference"])
    for name in ("ΔPPL", "KL, mean", "Same top token", "KL, worst text"):
        assert mixed[f"{name} low"] < mixed[name] < mixed[f"{name} high"]
    assert mixed["KL, worst text note"] == "valid.txt"
    lines = {line["Model"]: line for line in save(client, "KL low", "/compare", SEVERAL)}
    assert 0 < lines["sample"]["KL low"] < lines["sample"]["KL"] < lines["sample"]["KL high"]


@pytest.mark.parametrize("page", ["Releases", "The same as a table"])
def test_releases_have_sizes_in_bytes_and_shares(
    client: FlaskClient, root: Path, page: str
) -> None:
    headline = json.loads((root / "worse" / "run.json").read_text(encoding="utf-8"))["headline"]
    heading = "Begun (UTC)" if page == "Releases" else "KL (nats a token)"
    found = save(client, heading, "/trend", "?runs=sample/mended/worse")
    last = next(line for line in found if line.get("Release") == "worse")
    assert last["Size"] == headline["bytes"]["mixed"]
    assert 0 < last["Same top token low"] < last["Same top token"] < last["Same top token high"] < 1


def test_a_difference_and_its_bounds_have_one_unit(client: FlaskClient) -> None:
    found = save(client, "B − A", "/compare", "?a=sample&b=mended")
    (top,) = [line for line in found if line[""] == "Same top token"]
    low, high = (top[f"95%, paired by token {end}"] for end in ("low", "high"))
    assert low < top["B − A"] < high and max(map(abs, (low, high))) < 0.1


def test_all_texts_are_counted_as_one_is(client: FlaskClient, root: Path) -> None:
    found = save(client, "PPL ratio", "/run/texts")
    counted = [line["Tokens"] for line in found if line["Tokens"] != ""]
    assert counted[-1] == sum(counted[:-1]) and len(counted) == 3
    for line in found:
        if line["Same top token low"] != "":
            low, high = line["Same top token low"], line["Same top token high"]
            assert 0 < low <= line["Same top token"] <= high < 1


def test_limits_have_their_notes_and_bounds_apart(client: FlaskClient) -> None:
    lines = {line["Number"]: line for line in save(client, "Limit", "/run/smollm2")}
    ratio = lines["PPL ratio"]
    assert ratio["Limit"] == 1.03 and ratio["Limit note"] == "≤"
    assert ratio["95% low"] < ratio["Measured"] < ratio["95% high"]
    assert ratio["Note"] == "surely above the limit"
    assert lines["Proof"]["Measured"] == "passed"


def test_a_plan_has_seconds_and_bytes() -> None:
    stage = {"stage": "search", "seconds": 5400.5, "peak_bytes": 3 << 29, "chunks": 1, "passes": 2}
    plan = {"workers": 1, "seconds": 5400.5, "budget": 4 << 30, "minimum": 1 << 30}
    found = show_plan(Planned("done", plan | {"stages": [stage | {"spilled_bytes": 0}]}))
    shown = json.loads(json.dumps(found, cls=PlotlyJSONEncoder))
    (line,) = save_table(find_type(shown, "Table")[0])
    assert (line["Time"], line["Memory"], line["Streams in files"]) == (5400.5, 3 << 29, "")
