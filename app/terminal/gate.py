"""A gate's verdict written out: terminal, JSON, JUnit, Markdown. All are made of the same lines
(app/words/gate/lines.py), and a name from outside is nowhere more than text.

In JUnit an inconclusive limit is an error. `skipped` would be wrong: CI servers count a skipped
test as no problem, and an undecided release would look released.
"""

import json
import math
import re
from collections import Counter
from typing import Any
from xml.etree import ElementTree

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from awqscope.app.words.gate.lines import (
    SIGNS,
    clean,
    write_context,
    write_lines,
    write_sentence,
)
from awqscope.app.words.numbers import shorten_specs
from awqscope.app.words.texts import write_found
from awqscope.diagnose.gate.verdict import FAIL, INCONCLUSIVE, PASS, Check, GateVerdict

SCHEMA = 1
EMOJI = {PASS: "✅", FAIL: "❌", INCONCLUSIVE: "⚠️"}
STYLES = {PASS: "green", FAIL: "bold red", INCONCLUSIVE: "bold yellow"}
TAGS = {FAIL: "failure", INCONCLUSIVE: "error"}
# What the gate's outputs say of each text, where a run has several.
TEXT_COLUMNS = {
    "text": "text",
    "tokens": "tokens",
    "ppl_ratio": "PPL ratio [95%]",
    "kl": "KL [95%]",
    "kl_p999": "KL, p99.9",
    "top1_agreement": "same top token",
    "rms_delta_p": "Δp, RMS",
}
SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~@$])")


def write_texts(verdict: GateVerdict) -> list[dict[str, str]]:
    """What was found of the judged model in each text: lines of TEXT_COLUMNS, none of a single
    text."""
    evidence, rows = verdict.evidence, []
    names = shorten_specs([part.text for part in evidence.texts])
    for name, part in zip(names, evidence.texts, strict=True):
        row = {"text": clean(name), "tokens": f"{part.tokens:,}"}
        for key in TEXT_COLUMNS:
            if key not in row:
                found = write_found(part.find(evidence.subject, key), key)
                row[key] = found if key in ("ppl_ratio", "kl") else found.partition(" ")[0]
        rows.append(row)
    return rows


def write_terminal(verdict: GateVerdict) -> Group:
    """The verdict for the terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "value", "95%", "limit", "verdict", ""):
        table.add_column(name, justify="right" if name in ("value", "95%") else "left")
    for line in write_lines(verdict):
        judged = Text(f"{SIGNS[line.outcome]} {line.outcome}", style=STYLES[line.outcome])
        texts = (Text(text) for text in (line.title, line.value, line.interval, line.bound))
        table.add_row(*texts, judged, Text(line.note))
    parts: list[Any] = [
        Text(write_sentence(verdict), style=STYLES[verdict.outcome]),
        Text(write_context(verdict), style="dim"),
        table,
    ]
    if verdict.evidence.texts:
        by_text = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for key, head in TEXT_COLUMNS.items():
            by_text.add_column(head, justify="left" if key == "text" else "right")
        for row in write_texts(verdict):
            by_text.add_row(*map(Text, row.values()))
        parts.append(by_text)
    return Group(*parts, *(Text(note, style="dim") for note in verdict.notes))


def to_json(verdict: GateVerdict) -> dict[str, Any]:
    """The verdict for scripts. Numbers that are not finite are null."""
    evidence = verdict.evidence
    return {
        "schema": SCHEMA,
        "verdict": verdict.outcome,
        "exit_code": verdict.exit_code,
        "run": evidence.run,
        "subject": evidence.subject,
        "baseline": evidence.baseline,
        "baseline_subject": evidence.baseline_subject,
        "policy": verdict.policy,
        "windows": evidence.windows,
        "scored_tokens": evidence.scored_tokens,
        "limits": [_limit_json(check) for check in verdict.checks],
        "texts": [part.of_model(evidence.subject) for part in evidence.texts],
        "notes": list(verdict.notes),
    }


def _limit_json(check: Check) -> dict[str, Any]:
    finding = check.finding
    numbers = {
        name: getattr(finding, name) if finding and math.isfinite(getattr(finding, name)) else None
        for name in ("value", "low", "high")
    }
    return {
        "name": check.limit.name,
        "limit": check.limit.value,
        "verdict": check.outcome,
        **numbers,
        "of": finding.of if finding else "",
        "reason": check.reason,
        "tokens_to_decide": check.tokens,
        "samples_to_decide": check.samples,
        "task": _task_json(check),
    }


def _task_json(check: Check) -> dict[str, Any] | None:
    """What a limit on a task was decided by, null for any other."""
    if check.weighed is None:
        return None
    pair = check.weighed.pair
    worse, better = pair.changed
    return {
        "name": pair.task,
        "metric": pair.metric,
        "samples": pair.samples,
        "worse": worse,
        "better": better,
        "p": pair.chance,
        "p_adjusted": check.weighed.adjusted,
    }


def write_json_text(verdict: GateVerdict) -> str:
    """`to_json` as text, in ASCII: a name on disk need not be UTF-8."""
    return json.dumps(to_json(verdict), indent=2, allow_nan=False) + "\n"


def write_junit(verdict: GateVerdict) -> str:
    """The verdict as JUnit XML: a test case a limit; see above for what is inconclusive."""
    counts = Counter(check.outcome for check in verdict.checks)
    totals: dict[str, str] = {
        "tests": str(len(verdict.checks)),
        "failures": str(counts[FAIL]),
        "errors": str(counts[INCONCLUSIVE]),
    }
    root = ElementTree.Element("testsuites", {"name": "awqscope gate", **totals})
    name = f"awqscope gate {clean(verdict.evidence.run)}"
    suite = ElementTree.SubElement(root, "testsuite", {"name": name, **totals, "skipped": "0"})
    properties = ElementTree.SubElement(suite, "properties")
    told = {
        "verdict": verdict.outcome,
        "subject": verdict.evidence.subject,
        "policy": verdict.policy,
        "baseline": verdict.evidence.baseline or "",
        "baseline_subject": verdict.evidence.baseline_subject or "",
        "scored_tokens": str(verdict.evidence.scored_tokens),
    }
    for key, value in told.items():
        ElementTree.SubElement(properties, "property", name=key, value=clean(value))
    for check, line in zip(verdict.checks, write_lines(verdict), strict=True):
        criterion = check.limit.criterion
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=f"awqscope.gate.{criterion.section}",
            name=clean(check.limit.key),
            time="0",
        )
        said = f"{line.title}: {line.value} {line.interval}, limit {line.bound}. {line.note}"
        said = " ".join(said.replace(" ,", ",").split())
        if line.outcome in TAGS:
            tag = TAGS[line.outcome]
            ElementTree.SubElement(case, tag, message=said, type=line.outcome).text = said
        else:
            ElementTree.SubElement(case, "system-out").text = said
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def write_markdown(verdict: GateVerdict) -> str:
    """The verdict for the summary of a CI run."""
    lines = [
        f"### {EMOJI[verdict.outcome]} awqscope gate: {verdict.outcome}",
        "",
        f"{_escape(write_sentence(verdict))} {_escape(write_context(verdict))}",
        "",
        "| | value | 95% | limit | verdict | |",
        "|---|--:|--:|---|---|---|",
    ]
    for line in write_lines(verdict):
        cells = (line.title, line.value, line.interval, line.bound)
        judged = f"{EMOJI[line.outcome]} {line.outcome}"
        row = (*map(_escape, cells), judged, _escape(line.note))
        lines.append(f"| {' | '.join(row)} |")
    if verdict.evidence.texts:
        heads = " | ".join(map(_escape, TEXT_COLUMNS.values()))
        lines += ["", f"| {heads} |", f"|---{'|--:' * (len(TEXT_COLUMNS) - 1)}|"]
        lines += [f"| {' | '.join(map(_escape, row.values()))} |" for row in write_texts(verdict)]
    lines += [part for note in verdict.notes for part in ("", _escape(note))]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    """Text that no Markdown reader takes for more."""
    marked = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\1", marked)
