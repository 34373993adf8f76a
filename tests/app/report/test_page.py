"""The report: one page that asks for nothing, says what the run holds, and takes text as text."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.app.figures.script import read_script
from awqscope.app.report.contents import (
    AFTER,
    BEFORE,
    PASSAGES,
    Findings,
    choose_passages,
    read_findings,
)
from awqscope.app.report.outcome import provenance_tables
from awqscope.app.report.page import page_style, to_data, write_page
from awqscope.app.words.verdict import shorten_model
from awqscope.diagnose.gate.policy import DEFAULT_PATH
from tests.help.runs import SAMPLE, change_record, write_run

VOID = {"meta", "link", "br", "hr", "img", "input"}
POLICY = "[limits]\nmax_kl = 0.001\nmin_top1_agreement = 0.5\n"
HOSTILE = "</script><img src=x onerror=alert(1)>\u2028<!--\"'&amp;{{7*7}}"


class Page(HTMLParser):
    """A page as an independent parser reads it: its elements with their attributes and text."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[int] = []
        self.feed(html)
        self.close()
        assert not self._open, "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for place in self._open:
            self.elements[place][2].append(data)

    def texts(self, tag: str, **attributes: str) -> list[str]:
        """What the elements of a kind hold, those with these attributes only."""
        return [
            "".join(text)
            for name, found, text in self.elements
            if name == tag and attributes.items() <= found.items()
        ]

    def values(self, attribute: str) -> list[str]:
        return [found[attribute] for _, found, _ in self.elements if attribute in found]

    def cells(self, caption: str) -> list[list[str]]:
        """The rows of the table with that caption."""
        rows: list[list[str]] = []
        inside = False
        for tag, _, text in self.elements:
            if tag == "table":
                inside = False
            if tag == "caption" and "".join(text) == caption:
                inside = True
            if inside and tag == "tr":
                rows.append([])
            if inside and tag == "td":
                rows[-1].append("".join(text))
        return [row for row in rows if row]

    def figure(self, key: str) -> Any:
        """The data of a chart."""
        return json.loads(self.texts("script", id=f"data-{key}")[0], parse_constant=pytest.fail)


def read_array(values: Any) -> list[float]:
    """A list of plotly's data, which may be packed."""
    if isinstance(values, dict):
        flat = np.frombuffer(base64.b64decode(values["bdata"]), np.dtype(values["dtype"]))
        return flat.astype(float).tolist()
    return [float(value) for value in np.array(values, dtype=float).ravel()]


def read_number(text: str) -> float:
    return float(text.replace("−", "-").split()[0])


@pytest.fixture(scope="module")
def found() -> Findings:
    return read_findings(SAMPLE)


@pytest.fixture(scope="module")
def html(found: Findings) -> str:
    return write_page(found)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_nothing_is_asked_of_anybody(page: Page) -> None:
    assert page.values("src") == []
    assert all(target.startswith(("#", "data:")) for target in page.values("href"))
    assert not re.search(r"@import|url\(", "".join(page.texts("style")))
    policy = page.values("content")[0]
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy and "connect-src" not in policy and "unsafe-eval" not in policy
    run = [
        "".join(text)
        for tag, attributes, text in page.elements
        if tag == "script" and attributes.get("type") != "application/json"
    ]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run]
    assert re.findall(r"'sha256-([^']+)'", policy) == digests
    assert sum(text == read_script() for text in run) == 1
    assert sum(map(len, run)) < 1.6e6


def test_every_name_is_one_elements_and_every_reference_finds_it(page: Page) -> None:
    names = Counter(page.values("id"))
    assert set(names.values()) == {1}
    wanted = [target[1:] for target in page.values("href") if target.startswith("#")]
    wanted += page.values("aria-labelledby") + page.values("data-chart")
    assert set(wanted) <= set(names)
    regions = Counter(
        found["aria-label"] for _, found, _ in page.elements if found.get("role") == "region"
    )
    assert set(regions.values()) == {1}


def test_every_chart_has_its_sentence_and_table(page: Page) -> None:
    charts = page.values("data-chart")
    assert charts == ["data-profile-kl", "data-profile-delta-ppl", "data-units", "data-recipes"]
    assert len(page.texts("figure")) == len(page.texts("figcaption")) == len(charts)
    for figure in page.texts("figcaption"):
        assert len(figure.split()) > 10


@pytest.mark.parametrize(
    ("key", "caption", "metric"),
    [("profile-kl", "KL by block", "kl"), ("profile-delta-ppl", "ΔPPL by block", "delta_ppl")],
)
def test_the_profile_is_the_runs(page: Page, key: str, caption: str, metric: str) -> None:
    rows = pq.read_table(SAMPLE / "blocks.parquet").to_pylist()
    cells = page.cells(caption)
    for trace, view, column in zip(
        page.figure(key)["data"], ("isolated", "cumulative", "restored"), (1, 3, 4), strict=True
    ):
        stored = [row[metric] for row in rows if row["view"] == view]
        assert read_array(trace["y"]) == pytest.approx(stored)
        assert [read_number(row[column]) for row in cells] == pytest.approx(stored, abs=6e-5)


def test_the_heat_map_is_the_runs(page: Page) -> None:
    rows = pq.read_table(SAMPLE / "units.parquet").to_pylist()
    stored = sorted(
        row["estimated_kl"] if row["exact_kl"] is None else row["exact_kl"]
        for row in rows
        if row["bits"] == 4
    )
    heat = page.figure("units")["data"][0]
    assert sorted(10 ** np.array(read_array(heat["z"]))) == pytest.approx(stored)
    shown = sorted(read_number(row[1]) for row in page.cells("KL by unit, the largest first"))
    assert shown == pytest.approx(stored, rel=1e-3)


def test_the_recipes_are_the_runs(page: Page) -> None:
    drawn = sorted(y for trace in page.figure("recipes")["data"] for y in read_array(trace["y"]))
    shown = sorted(read_number(row[2]) for row in page.cells("Recipes by size and KL"))
    promotions = pq.read_table(SAMPLE / "promotions.parquet")["kl"].to_pylist()
    kl = json.loads((SAMPLE / "run.json").read_text())["headline"]["kl"]
    assert drawn == pytest.approx(sorted([*promotions, *kl.values()]))
    assert shown == pytest.approx(drawn, rel=1e-3)


def test_the_flagged_block_the_tokens_and_the_recipe(page: Page, found: Findings) -> None:
    flagged = page.texts("article", **{"class": "flag"})
    assert len(flagged) == 1
    for said in ("▲ Block 5", "KL 244.1×", "5.qkv, 5.o", "✓ chosen", "into down", "477 (38.5)"):
        assert said in flagged[0]
    tokens = pq.read_table(SAMPLE / "tokens.parquet").to_pylist()
    worst = max(tokens, key=lambda row: row["kl_uniform"] or 0)
    marks = page.texts("mark")
    assert len(marks) == len(found.passages) == PASSAGES
    assert marks[0] == worst["text"].replace("\n", "⏎\n")
    window = "".join(row["text"] for row in tokens if row["window"] == worst["window"])
    shown = page.texts("div", **{"class": "text"})[0].replace("⏎\n", "\n")
    assert shown in window and len(shown) > 150
    assert page.cells("Blocks by unit and width")[0] == ["qkv", "0–4, 6–7", "5"]
    outcome = {row[0]: row[2] for row in page.cells("What the recipe comes to")}
    assert outcome["Perplexity"] == "64.315"
    assert outcome["Lost KL given back"] == "94.9% [94.7%, 95.2%]"


@pytest.mark.parametrize("policy", [None, POLICY])
def test_the_gates_verdict_comes_second_with_every_limit(
    policy: str | None, tmp_path: Path
) -> None:
    """The same as `awqscope gate --json` says, by the same policy."""
    files = {"json": tmp_path / "gate.json", "page": tmp_path / "page.html"}
    options: list[object] = []
    if policy is not None:
        (tmp_path / "ours.toml").write_text(policy, encoding="utf-8")
        options = ["--policy", tmp_path / "ours.toml"]
    gate = ["gate", str(SAMPLE), "--json", str(files["json"]), *map(str, options)]
    judged = CliRunner().invoke(app, gate)
    assert invoke(SAMPLE, "-o", files["page"], *options).exit_code == 0
    verdict = json.loads(files["json"].read_text(encoding="utf-8"))
    expected = (0, "pass") if policy is None else (1, "fail")
    assert (judged.exit_code, verdict["verdict"]) == expected
    html = files["page"].read_text(encoding="utf-8")
    page = Page(html)
    rows = page.cells("Limits of the release gate")
    assert len(rows) == len(verdict["limits"])
    for row, limit in zip(rows, verdict["limits"], strict=True):
        assert row[4].split() == [row[4].split()[0], limit["verdict"]]
        if limit["name"] == "limits.max_kl":
            assert row[1] == f"{limit['value']:.5f}"
    assert html.index('class="verdict"') < html.index('id="release"') < html.index('class="tiles"')
    said = page.texts("p")
    assert any(f"{verdict['scored_tokens']:,} scored tokens" in text for text in said)
    by = "the default policy" if policy is None else "the policy ours.toml"
    assert any(f"The mixed model, by {by}," in text for text in said)
    assert str(tmp_path) not in html


def test_a_run_that_no_gate_can_judge_has_a_report(tmp_path: Path) -> None:
    """Runs of earlier versions lack what it takes."""
    record = json.loads((SAMPLE / "run.json").read_text(encoding="utf-8"))
    del record["ppl_definition"]["tokens_sha256"]
    path = write_run(tmp_path, ppl_definition=record["ppl_definition"])
    said = write_page(read_findings(path))
    assert "the gate cannot judge this run: sample/run.json has no usable" in said
    assert str(tmp_path) not in said


def test_a_run_is_judged_by_its_own_policy_as_the_gate_judges_it(tmp_path: Path) -> None:
    """On its page and in a bundle's list; by another only where one is given."""
    run, out = write_run(tmp_path, "own"), tmp_path / "x.html"
    (run / "policy.toml").write_text(POLICY, encoding="utf-8")
    expected = json.loads(CliRunner().invoke(app, ["gate", str(run), "--json", "-"]).stdout)
    assert expected["verdict"] == "fail"
    assert invoke(run, "-o", out).exit_code == 0
    said = out.read_text(encoding="utf-8")
    assert "✕ May not ship" in said and "by its own policy" in said
    assert invoke(run, SAMPLE, "-o", tmp_path / "site").exit_code == 0
    listed = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "✕ May not ship" in listed and "✓ May ship" in listed
    (tmp_path / "default.toml").write_text(DEFAULT_PATH.read_text("utf-8"), encoding="utf-8")
    assert invoke(run, "-o", out, "--policy", tmp_path / "default.toml").exit_code == 0
    said = out.read_text(encoding="utf-8")
    assert "? Undecided" in said and "by the policy default.toml" in said


def test_a_policy_of_its_own_that_cannot_be_used_is_refused_as_a_given_one(tmp_path: Path) -> None:
    run = write_run(tmp_path, "broken")
    (run / "policy.toml").write_text("[limits]\nmax_klp = 1\n", encoding="utf-8")
    result = invoke(run, "-o", tmp_path / "x.html")
    assert result.exit_code == 2 and "did you mean max_kl?" in result.stderr
    assert not (tmp_path / "x.html").exists()


def test_a_policy_that_is_none_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    result = invoke(SAMPLE, "-o", tmp_path / "x.html", "--policy", tmp_path / "none.toml")
    assert result.exit_code == 2 and "there is no policy" in result.stderr
    assert not (tmp_path / "x.html").exists()


def test_provenance(page: Page) -> None:
    record = json.loads((SAMPLE / "run.json").read_text())
    facts = page.texts("dd")
    assert any(record["ppl_definition"]["sentence"] in fact for fact in facts)
    assert "2026-11-21 13:34 UTC" in facts
    hashes = {row[1] for row in page.cells("Hashes")}
    assert set(record["source"]["hashes"].values()) < hashes
    assert record["ppl_definition"]["tokens_sha256"] in hashes
    options = dict(page.cells("Options of the run"))
    said = [options[label] for label in ("Seed", "Bits", "Worst blocks", "Memory")]
    assert said == ["0", "4", "not set", "8.00 GiB"]


def test_the_same_run_gives_the_same_bytes(html: str) -> None:
    """In another process too, where sets have another order."""
    command = [sys.executable, "-m", "awqscope.app.cli", "report", str(SAMPLE), "-o", "-"]
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    written = subprocess.run(command, capture_output=True, check=True, env=environment).stdout
    assert written == html.encode()


def test_no_text_of_a_run_becomes_markup(page: Page, found: Findings) -> None:
    record = found.record.changed(
        model=HOSTILE,
        spec=found.record.spec.change(model=HOSTILE),
        versions={HOSTILE: HOSTILE},
        ppl_definition=found.record.ppl_definition.changed(text=HOSTILE, sentence=HOSTILE),
    )
    hostile = replace(
        found,
        name=HOSTILE,
        record=record,
        blocks=[row | {"reason": HOSTILE} for row in found.blocks],
        units=[row | {"kind": HOSTILE} for row in found.units],
        promotions=[row | {"units": [HOSTILE]} for row in found.promotions],
        passages=[
            replace(passage, rows=[row | {"text": HOSTILE} for row in passage.rows])
            for passage in found.passages
        ],
        spoiled={5: [row | {"text": HOSTILE} for row in found.spoiled[5]]},
    )
    written = Page(write_page(hostile))
    assert Counter(tag for tag, _, _ in written.elements) == Counter(
        tag for tag, _, _ in page.elements
    )
    assert written.texts("mark")[0] == HOSTILE
    assert written.texts("h1") == [HOSTILE.rpartition("/")[2]]
    assert written.figure("units")["data"][0]["y"] == [HOSTILE]
    assert (
        HOSTILE.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        in (written.figure("recipes")["data"][1]["text"])
    )


def test_data_holds_nothing_that_html_reads() -> None:
    figure = go.Figure(go.Bar(x=[HOSTILE, "\u2029"], y=[1.0, float("nan")]))
    data = to_data(figure)
    assert not set(data) & set("<>&\u2028\u2029")
    read = json.loads(data, parse_constant=pytest.fail)
    assert read["data"][0]["x"] == [HOSTILE, "\u2029"]


def test_a_run_where_no_block_is_flagged(found: Findings) -> None:
    record = found.record.changed(headline=found.record.measured.changed(flagged=[]))
    blocks = [row | {"flagged": False, "reason": "below z = 3.5"} for row in found.blocks]
    said = write_page(replace(found, record=record, blocks=blocks, promotions=[], spoiled={}))
    assert "The nearest is block 5: below z = 3.5." in said
    assert 'class="flag"' not in said


def test_a_run_without_a_checkpoint(found: Findings) -> None:
    headline = found.record.to_json()["headline"]
    for name in ("ppl", "delta_ppl", "kl", "kl_interval", "top1_agreement", "bytes"):
        headline[name]["mixed"] = None
    headline |= {"recovered": None, "recovered_interval": None, "proved": None}
    stages = {
        **found.record.stages,
        "requantize": {"state": "skipped", "reason": "no server loads 3-bit layers"},
    }
    record = found.record.changed(headline=headline, stages=stages)
    page = Page(write_page(replace(found, record=record, proof=None)))
    assert "○ no checkpoint proved" in page.texts("span")
    assert "Proof" not in page.texts("h3")
    assert {row[2] for row in page.cells("What the recipe comes to")} == {"–"}
    assert any("no server loads 3-bit layers" in text for text in page.texts("p"))


def test_a_proof_that_failed(found: Findings) -> None:
    assert found.proof is not None
    checks = found.proof["checks"] | {"differing_on_disk": ["model.norm.weight"]}
    record = found.record.changed(headline=found.record.measured.changed(proved=False))
    proof = {**found.proof, "passed": False, "checks": checks}
    page = Page(write_page(replace(found, record=record, proof=proof)))
    assert "✕ the proof failed" in page.texts("span")
    assert "1 different on disk (model.norm.weight first)" in page.texts("dd")


def test_kept_units(found: Findings) -> None:
    kept = sorted({row["unit"] for row in found.units})
    spec = found.record.spec.change(keep_fp16=tuple(kept[:1]))
    said = write_page(replace(found, record=found.record.changed(spec=spec)))
    assert f"Kept at 16 bits, as asked: {kept[0]}." in said
    spec = found.record.spec.change(keep_fp16=tuple(kept))
    page = Page(write_page(replace(found, record=found.record.changed(spec=spec))))
    assert "No unit was quantized and measured." in page.texts("p")


def test_runs_of_earlier_versions(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    record = json.loads((run / "run.json").read_text())
    del record["ppl_definition"]["tokens_sha256"], record["estimator"], record["plan"]
    change_record(run, **record)
    (run / "weights.parquet").unlink()
    tokens = pq.read_table(run / "tokens.parquet")
    late = ["restored_kl", "top_reference", "top_uniform"]
    pq.write_table(tokens.drop_columns(late), run / "tokens.parquet")
    units = pq.read_table(run / "units.parquet")
    pq.write_table(units.filter(pa.compute.less(units["bits"], 16)), run / "units.parquet")
    proof = json.loads((run / "proof.json").read_text())
    proof["checks"] = {"linears": 56, "wrong_width": []}
    (run / "proof.json").write_text(json.dumps(proof))
    page = Page(write_page(read_findings(run)))
    assert len(page.texts("mark")) == PASSAGES
    assert any("alone moves it most" in text for text in page.texts("p"))


def test_little_is_left_of_a_run(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    for name in ("tokens", "units", "promotions", "activations", "weights"):
        (run / f"{name}.parquet").unlink()
    for name in ("recipe.json", "proof.json"):
        (run / name).unlink()
    page = Page(write_page(read_findings(run)))
    said = page.texts("p")
    assert {"The run kept no tokens.", "The run chose no recipe."} <= set(said)


def test_passages_are_apart() -> None:
    worst = [{"window": 0, "position": at} for at in (100, 100 + BEFORE, 100 + BEFORE + AFTER + 1)]
    worst += [{"window": 1, "position": 100}]
    assert choose_passages(worst) == [worst[0], worst[2], worst[3]]
    many = [{"window": at, "position": 5} for at in range(50)]
    assert choose_passages(many) == many[:PASSAGES]


@pytest.mark.parametrize(
    ("model", "name"),
    [("org/model", "org/model"), ("/home/me/model/", "model"), ("./model", "model"), ("m", "m")],
)
def test_a_models_name(model: str, name: str) -> None:
    assert shorten_model(model) == name


def test_the_style_is_the_dashboards_with_the_readers_scheme() -> None:
    style = page_style()
    assert ":root[data-mantine" not in style
    dark = style.index("@media screen and (prefers-color-scheme: dark) { :root {")
    assert style.index("--ground: #ffffff") < dark < style.index("--ground: #12161c")
    assert style.count("{") == style.count("}")


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_a_page_that_is_there_is_replaced(html: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report.html"
    result = invoke(SAMPLE, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: {len(html.encode()) / 1e6:.2f} MB\n"
    assert out.read_text(encoding="utf-8") == html
    out.write_text("older")
    assert invoke(SAMPLE, "-o", out).exit_code == 0
    assert out.read_text(encoding="utf-8") == html
    assert os.listdir(out.parent) == ["report.html"]


def test_every_text_has_its_hash(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    definition = json.loads((run / "run.json").read_text())["ppl_definition"]
    parts = [
        {"text": f"{name}.txt", "sha256": name * 64, "first_window": 20 * n, "windows": 20}
        for n, name in enumerate("ab")
    ]
    change_record(run, ppl_definition={**definition, "slices": parts})
    (hashes, _) = provenance_tables(read_findings(run))
    rows = {row["what"]: row["hash"] for row in hashes.rows}
    assert (rows["Text a.txt"], rows["Text b.txt"]) == ("a" * 64, "b" * 64)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"state": "running"}, "(it was stopped before its end): go on with it: awqscope run "),
        (
            {"state": "failed", "error": {"message": "no space", "remedy": "free some"}},
            "failed (no space): free some; go on with it: awqscope run ",
        ),
        ({"state": "failed"}, "no reason was recorded"),
        ({"schema": 99}, "schema 99"),
        ({"headline": None}, "no usable 'headline'"),
    ],
)
def test_runs_that_cannot_be_reported(tmp_path: Path, changes: dict[str, Any], wanted: str) -> None:
    run, out = write_run(tmp_path), tmp_path / "report.html"
    change_record(run, **changes)
    if changes.get("state") == "failed" and "error" not in changes:
        record = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps(record | {"error": None}))
    result = invoke(run, "-o", out)
    assert (result.exit_code, result.stdout) == (2, "")
    assert wanted in result.stderr and len(result.stderr.splitlines()) == 1
    assert not out.exists()


def test_what_is_no_run_or_damaged_or_no_page(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    recipe = (run / "recipe.json").read_bytes()
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").write_text("")
    for out in (run / "recipe.json", tmp_path / "folder.html", tmp_path / "file" / "x.html"):
        assert invoke(run, "-o", out).exit_code == 2
    assert (run / "recipe.json").read_bytes() == recipe
    assert "holds no run" in invoke(tmp_path / "file", "-o", tmp_path / "x.html").stderr
    hidden = run.rename(tmp_path / ".hidden")
    assert "is hidden" in invoke(hidden, "-o", tmp_path / "x.html").stderr
    run = hidden.rename(run)
    for name in ("tokens.parquet", "blocks.parquet", "recipe.json", "proof.json"):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(b"PAR1 nothing")
        result = invoke(run, "-o", tmp_path / "x.html")
        assert result.exit_code == 2, result.output
        assert len(result.stderr.splitlines()) == 1
        (run / name).write_bytes(whole)
    assert not (tmp_path / "x.html").exists()
