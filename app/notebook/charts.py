"""The charts of the dashboard's pages, each by a name: the figures that the pages show, made of the
same rows."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from awqscope.app.notebook import compared, run_charts, study_charts
from awqscope.app.notebook.run import Run
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.atomic import replace_file, write_text

if TYPE_CHECKING:
    import pandas as pd

GROUND = "white"
WEIGHTS, SEARCHES = "studies/weights-*.json", "awq/block-*.safetensors"
# Endings of files that are drawn by a browser.
DRAWN = (".svg", ".png", ".pdf")


@dataclass(frozen=True)
class Chart:
    """title: what it shows. of: the file of the run that it is drawn of; `*` is any block or name.
    draw: a figure of a run and of options, by keyword."""

    title: str
    of: str
    draw: Callable[..., go.Figure]

    @property
    def options(self) -> dict[str, Any]:
        """What it takes besides the run, with what that is by default."""
        _, *others = inspect.signature(self.draw).parameters.values()
        return {option.name: option.default for option in others}

    def exists(self, run: Run) -> bool:
        """Whether a run has the file that it is drawn of."""
        return any(run.path.glob(self.of))


def draw_chart(run: Run, name: str, options: Mapping[str, Any]) -> go.Figure:
    """The chart of a name. InputError for a name or option that there is not, and where the run has
    not what it is drawn of."""
    chart = CHARTS.get(name)
    if chart is None:
        near = difflib.get_close_matches(name, CHARTS, n=1)
        remedy = (
            f"did you mean {near[0]!r}?" if near else "run.figures() lists those that there are"
        )
        raise InputError(f"there is no figure {name!r}", remedy)
    known = chart.options
    for option in options:
        if option not in known:
            listed = f"it takes {', '.join(known)}" if known else "it takes none"
            raise InputError(f"the figure {name!r} has no option {option!r}", listed)
    for option, default in known.items():
        if default is inspect.Parameter.empty and option not in options:
            raise InputError(f"the figure {name!r} needs {option}", f"give {option}=")
    figure = chart.draw(run, **options)
    # The pages give it their own; by itself its letters are dark.
    figure.update_layout(paper_bgcolor=GROUND)
    return figure


def list_charts(run: Run) -> "pd.DataFrame":
    """Every chart by name, as `Run.figures` says."""
    import pandas as pd

    rows = [
        {
            "figure": name,
            "title": chart.title,
            "options": ", ".join(_write_option(*option) for option in chart.options.items()),
            "of": chart.of,
            "exists": chart.exists(run),
        }
        for name, chart in CHARTS.items()
    ]
    return pd.DataFrame(rows).set_index("figure")


def _write_option(name: str, default: Any) -> str:
    return name if default is inspect.Parameter.empty else f"{name}={default!r}"


def save_chart(figure: go.Figure, file: Path) -> Path:
    """Write a figure to a file: .html with all that it needs in it, or what a browser draws of it,
    which takes the extra `plots`. Nobody is asked for anything. InputError where it cannot be."""
    suffix = file.suffix.lower()
    if suffix not in (".html", *DRAWN):
        raise InputError(f"{file} is no chart", f"end it in .html, {', '.join(DRAWN)}")
    if not file.absolute().parent.is_dir():
        raise InputError(f"{file.parent} is no directory", "make it, or give another file")
    if suffix == ".html":
        write_text(file.resolve(), figure.to_html(include_plotlyjs=True, include_mathjax=False))
        return file
    return _save_drawn(figure, file, suffix)


def _save_drawn(figure: go.Figure, file: Path, suffix: str) -> Path:
    try:
        import kaleido
    except ImportError as error:
        remedy = "install it with pip install 'awqscope[plots]', or end the file in .html"
        raise InputError(f"{file} takes kaleido, which is not installed", remedy) from error
    shape = {"format": suffix[1:], "width": 900, "height": figure.layout.height, "scale": 2}
    try:
        # Its page would ask a server for what sets formulas.
        drawn = kaleido.calc_fig_sync(figure.to_dict(), opts=shape, kopts={"mathjax": False})
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{file} cannot be drawn ({said})",
            "install Chromium or Chrome, or end the file in .html",
        ) from error
    with replace_file(file.resolve()) as temporary:
        temporary.write_bytes(drawn)
    return file


CHARTS: Mapping[str, Chart] = {
    "blocks": Chart(
        "Where the damage is, block by block", "blocks.parquet", run_charts.draw_blocks
    ),
    "units": Chart("KL by block and unit", "units.parquet", run_charts.draw_all_units),
    "recipes": Chart("Recipes by size and KL", "promotions.parquet", run_charts.draw_all_recipes),
    "depth": Chart("SQNR of the blocks' outputs", "activations.parquet", run_charts.draw_outputs),
    "histogram": Chart(
        "Activations at a site", "activations.safetensors", run_charts.draw_histogram
    ),
    "channels": Chart(
        "Largest activation by channel", "activations.safetensors", run_charts.draw_outliers
    ),
    "token": Chart("KL of one token by block", "tokens.parquet", run_charts.draw_one_token),
    "differences": Chart("Two runs, block by block", "blocks.parquet", run_charts.draw_beside),
    "why_linears": Chart(
        "Shares of a block's KL", "studies/why-*.json", study_charts.draw_why_linears
    ),
    "why_growth": Chart("Error along a block", "studies/why-*.json", study_charts.draw_why_growth),
    "why_heads": Chart(
        "Shares of a block's error by head", "studies/why-*.json", study_charts.draw_why_heads
    ),
    "why_attention": Chart(
        "Attention by head", "studies/why-*.json", study_charts.draw_why_attention
    ),
    "why_channels": Chart(
        "A linear's input channels", "studies/why-*.json", study_charts.draw_why_channels
    ),
    "probe": Chart(
        "KL given back against bytes", "studies/probe-*.json", study_charts.draw_block_probe
    ),
    "calibration": Chart(
        "Damage by windows", "studies/calibrate.json", study_charts.draw_calibration
    ),
    "calibration_agreement": Chart(
        "Equal choices of two calibrations",
        "studies/calibrate.json",
        study_charts.draw_calibration_agreement,
    ),
    "calibration_texts": Chart(
        "KL by calibration and text", "studies/calibrate.json", study_charts.draw_calibration_texts
    ),
    "alternatives": Chart(
        "Other ways to quantize", "studies/alternatives.json", study_charts.draw_run_alternatives
    ),
    "int8": Chart("Blocks with int8 inputs", "studies/activations.json", study_charts.draw_int8),
    "tasks": Chart(
        "What each task lost or gained", "studies/tasks.json", study_charts.draw_task_scores
    ),
    "weights_channels": Chart(
        "Scale, activation and weight by channel", WEIGHTS, study_charts.draw_weight_channels
    ),
    "weights_clips": Chart("Groups by what is cut", WEIGHTS, study_charts.draw_weight_clips),
    "weights_codes": Chart("How often each code is used", WEIGHTS, study_charts.draw_weight_codes),
    "weights_group": Chart("A weight group's values", WEIGHTS, study_charts.draw_weight_group),
    "search_scales": Chart(
        "AWQ's scale and activation by channel", SEARCHES, study_charts.draw_search_scales
    ),
    "search_limits": Chart(
        "Largest scaled weight that is kept", SEARCHES, study_charts.draw_search_limits
    ),
    "sizes": Chart("Runs by size and KL", "tokens.parquet", compared.draw_sizes),
    "blocks_among": Chart(
        "KL by block on an axis for several runs", "blocks.parquet", compared.draw_blocks_among
    ),
    "releases": Chart("A number over releases", "tokens.parquet", compared.draw_releases),
    "explained_tokens": Chart(
        "KL by token of a prompt", "explained/*.json", study_charts.draw_explained_tokens
    ),
    "explained_blocks": Chart(
        "Which block parts a prompt", "explained/*.json", study_charts.draw_explained_blocks
    ),
}
