"""Reports of several runs as a directory: a list, a page a run, and the charts' script once.

It is plain files: any web server hands them out, and they open from a disk. The directory appears
whole, or not at all.
"""

import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from awqscope.app.figures.script import read_script
from awqscope.app.report.contents import Findings, read_findings
from awqscope.app.report.outcome import provenance
from awqscope.app.report.page import (
    environment,
    name_subject,
    page_style,
    write_page,
    write_policy,
)
from awqscope.app.report.release import release_part
from awqscope.app.store import RunSummary, Store
from awqscope.app.words.verdict import write_brief
from awqscope.diagnose.gate.policy import Policy
from awqscope.diagnose.runs.directory import reads_run
from awqscope.diagnose.runs.naming import RUNS, find_kind
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import report_full_disk, write_json, write_text
from awqscope.mixedprec.files.folders import hold_folder
from awqscope.mixedprec.files.untrusted import read_json
from awqscope.mixedprec.words import NOTHING, write_number, write_share, write_size

SCHEMA = 1
INDEX, SCRIPT, LISTED = "index.html", "plotly.js", "awqscope-bundle.json"
COLUMNS = ("Run", "Verdict", "Release gate", "KL", "Same top token", "Weights", "Model", "Finished")


@dataclass(frozen=True)
class Entry:
    """A run as the list has it. page: its file, empty for a run that is not finished. gate, look:
    the gate's verdict and its tone. numbers: KL, share of the same top token, bytes, written."""

    name: str
    page: str
    verdict: str
    gate: str
    look: str
    numbers: tuple[str, str, str]
    model: str
    finished: str


def write_bundle(paths: Sequence[Path], out: Path, policy: Policy | None) -> list[Entry]:
    """Write the reports of runs to the directory `out`, and say what is in it.

    paths: runs, which must be finished, and directories of runs, of which those without a report
    are listed and archived ones left out. InputError for what is neither, for a run that cannot be
    reported, and for a directory that holds anything but an earlier bundle, which is replaced.
    """
    check_free(out)
    found = list(_list_runs(paths))
    if not found:
        raise InputError(f"{paths[0]} holds no run", "give runs, or a directory of runs")
    partial = out.resolve().with_name(f".{out.resolve().name}.partial")
    with report_full_disk(out), hold_folder(partial, out):
        entries: list[Entry] = []
        for path, run in found:
            if run is not None and run.state != "done":
                said = run.error if run.record is None else write_brief(run.state, run.record)
                entries.append(_list_without(run, f"{run.state}: {said}"))
                continue
            try:
                with reads_run(path):
                    findings = read_findings(path, policy)
                    page = name_page(findings.name, {entry.page for entry in entries})
                    write_text(partial / page, write_page(findings, SCRIPT, INDEX))
                    entries.append(_list_run(findings, page))
            except InputError as error:
                if run is None:
                    raise
                # One of a directory's runs must not cost the others their pages. Where the
                # directory is, is nobody's business.
                said = error.what.replace(str(path), path.name)
                entries.append(_list_without(run, f"no report: {said}"))
        write_text(partial / SCRIPT, read_script())
        write_text(partial / INDEX, write_index(entries))
        files = [INDEX, SCRIPT, *(entry.page for entry in entries if entry.page)]
        write_json(partial / LISTED, {"schema": SCHEMA, "files": files})
        _put(partial, out.resolve())
    return entries


def check_free(out: Path) -> None:
    """Raise InputError where a bundle may not be put: over a file, or over a directory that holds
    anything but an earlier bundle."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file", "give -o a directory")
    there = {path.name for path in out.iterdir()}
    others = sorted(there - _list_own(out))
    if others:
        raise InputError(
            f"{out} holds {others[0]}, which is no part of a bundle", "give -o another directory"
        )


def _list_own(out: Path) -> set[str]:
    """The files that a bundle says are its own; none in what is no bundle."""
    try:
        return {LISTED, *map(str, read_json(out / LISTED)["files"])}
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _list_runs(paths: Sequence[Path]) -> Iterator[tuple[Path, RunSummary | None]]:
    """The runs of some paths, those of directories, but for archived ones, with how they stand."""
    for path in paths:
        if find_kind(path) != RUNS:
            yield path, None
            continue
        for run in Store(path).list_runs():
            if not run.notes.archived:
                yield path / run.name, run


def name_page(name: str, taken: Collection[str]) -> str:
    """The file of a run's page: its name as far as every file system and address takes it, told
    apart from the bundle's other files."""
    stem = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.")[:80] or "run"
    avoided = {each.lower() for each in (*taken, INDEX)}
    number, page = 1, f"{stem}.html"
    while page.lower() in avoided:
        number += 1
        page = f"{stem}-{number}.html"
    return page


def _list_run(found: Findings, page: str) -> Entry:
    record, release = found.record, release_part(found)
    headline = record.measured
    kl, top, size = headline.kl, headline.top1_agreement, headline.bytes
    is_mixed = kl.mixed is not None
    return Entry(
        name=found.name,
        page=quote(page),
        verdict=write_brief("done", record),
        gate=release.answer,
        look=release.look,
        numbers=(
            write_number(kl.mixed if is_mixed else kl.quantized),
            write_share(top.mixed if is_mixed else top.quantized),
            write_size(size.mixed if is_mixed else size.quantized),
        ),
        model=name_subject(record),
        finished=provenance(found)["Finished"],
    )


def _list_without(run: RunSummary, verdict: str) -> Entry:
    """A run without a page, and why."""
    model = "" if run.record is None else name_subject(run.record)
    return Entry(run.name, "", verdict, NOTHING, "quiet", (NOTHING,) * 3, model, NOTHING)


def write_index(entries: Sequence[Entry]) -> str:
    """The list of runs as HTML."""
    template = environment().get_template("bundle.html.jinja")
    style = Markup(page_style())
    return template.render(policy=write_policy(), style=style, columns=COLUMNS, entries=entries)


def _put(partial: Path, out: Path) -> None:
    """Have a whole bundle take the place of an earlier one, which is there until then."""
    earlier = out.with_name(f".{out.name}.earlier")
    if _list_own(earlier):
        # A process was killed between the next two steps.
        shutil.rmtree(earlier)
    if out.exists():
        out.rename(earlier)
    try:
        partial.rename(out)
    except OSError:
        if earlier.exists():
            earlier.rename(out)
        raise
    if earlier.exists():
        shutil.rmtree(earlier)
