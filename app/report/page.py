"""Findings to one HTML page that loads nothing: style, script and data are inside it, and its
policy forbids the rest.

The same findings give the same bytes. Text of a run goes in escaped, in markup by the template and
in data by `to_data`.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from awqscope.app.figures.script import read_script
from awqscope.app.report import damage, outcome, passages, release, texts
from awqscope.app.report.contents import Findings
from awqscope.app.report.pieces import Chart
from awqscope.app.words.compared.comparison import name_kind, write_note
from awqscope.app.words.numbers import reads_as_number
from awqscope.app.words.run import headline_tiles, promoted_units
from awqscope.app.words.terms.find import list_terms
from awqscope.app.words.texts import ratio_tiles
from awqscope.app.words.verdict import name_subject, write_verdict
from awqscope.diagnose.entries.headline import Headline
from awqscope.diagnose.runs.record import Comparison

HERE = Path(__file__).parent
NOTHING = "'none'"
STYLE = HERE.parent / "dashboard" / "assets" / "awqscope.css"
DARK = re.compile(r':root\[data-mantine-color-scheme="dark"\] (\{[^}]*\})')
# Inside a script element these could end it, or begin what HTML reads otherwise.
UNSAFE = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def write_page(found: Findings, plotly_at: str = "", home: str = "") -> str:
    """The report of a run as HTML. In a bundle: `plotly_at`, the address of the charts' script,
    which otherwise is inside; `home`, that of the list of runs."""
    record = found.record
    script = Markup((HERE / "report.js").read_text("utf-8"))
    plotly = Markup("" if plotly_at else read_script())
    profile, units = damage.profile_charts(found), damage.units_chart(found)
    recipe = outcome.recipe_part(found)
    charts = [*profile, *([units] if units else []), *([recipe.chart] if recipe.chart else [])]
    return (
        environment()
        .get_template("page.html.jinja")
        .render(
            policy=write_policy(*([plotly] if plotly else []), script, shares=bool(plotly_at)),
            plotly_at=plotly_at,
            home=home,
            style=Markup(page_style()),
            plotly=plotly,
            script=script,
            data={chart.key: to_data(chart.figure) for chart in charts},
            title=name_subject(record),
            run=found.name,
            proved=record.headline.proved if isinstance(record.headline, Headline) else None,
            verdict=write_verdict(record, promoted_units(found.recipe, record)),
            release=release.release_part(found),
            tiles=[*headline_tiles(record, found.bits), *ratio_tiles(found.numbers, record)],
            by_text=texts.text_tables(found),
            quantized=name_kind(record),
            note=write_note(record) if isinstance(record, Comparison) else "",
            profile=profile,
            units=units,
            widths=damage.found_widths(found),
            places=damage.places_table(found),
            about_units=damage.about_units(found),
            flagged=damage.flagged_blocks(found),
            why_none=damage.why_none(found),
            passages=passages.show_passages(found),
            recipe=recipe,
            provenance=outcome.provenance(found),
            provenance_tables=outcome.provenance_tables(found),
            terms=_list_terms(found, profile, units),
            definition=record.ppl_definition.sentence,
            finished=outcome.provenance(found)["Finished"],
        )
    )


def _list_terms(
    found: Findings, profile: Sequence[Chart], units: Chart | None
) -> Sequence[tuple[str, str]]:
    """The terms that the page uses in its sentences and headings, with their meanings."""
    record, limits = found.record, release.release_part(found).limits
    charts = [*profile, *([units] if units else [])]
    tables = [*(chart.table for chart in charts), *([limits] if limits else [])]
    texts = [write_verdict(record, promoted_units(found.recipe, record))]
    texts += [tile.label for tile in headline_tiles(record)]
    texts += [name for table in tables for name in table.columns.values()]
    texts += [row["title"] for row in limits.rows] if limits else []
    texts += [chart.summary for chart in charts]
    return [(term.name, term.plain) for term in list_terms(texts)]


def to_data(figure: go.Figure) -> Markup:
    """A figure as JSON that can stand in a script element."""
    plain = json.loads(figure.to_json(engine="json"))
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.translate(UNSAFE))


def page_style() -> str:
    """The dashboard's style with dark as the reader's system has it, then the report's own."""
    shared = STYLE.read_text(encoding="utf-8")
    dark = r"@media screen and (prefers-color-scheme: dark) { :root \1 }"
    return DARK.sub(dark, shared) + (HERE / "report.css").read_text(encoding="utf-8")


def write_policy(*scripts: str, shares: bool = False) -> str:
    """A page's content security policy: these scripts, its own style, nothing from anywhere.
    shares: files beside it are its own too, from a server or a disk."""
    own = ["'self' file:"] if shares else []
    allowed = " ".join([*own, *(f"'sha256-{_digest(script)}'" for script in scripts)])
    return (
        f"default-src 'none'; script-src {allowed or NOTHING}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def environment() -> Environment:
    """Where templates are, and how they are filled in: text is escaped."""
    made = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.tests["number"] = _is_number
    return made


def _is_number(cell: Any) -> bool:
    return isinstance(cell, str) and reads_as_number(cell)
