"""The script that draws the charts: plotly.js with bars, points, heat maps, histograms and the like
alone, a third of the whole. It lies here packed, as browsers take it."""

import gzip
from pathlib import Path

from plotly.offline import get_plotlyjs, get_plotlyjs_version

# Of another version than the installed plotly it might not know what a figure says, and is not used
# then.
BUNDLE = Path(__file__).parent / "plotly" / f"plotly-cartesian-{get_plotlyjs_version()}.min.js.gz"


def read_script() -> str:
    """The script as it stands in a page; all of plotly.js where only the whole will do."""
    if not BUNDLE.exists():
        return get_plotlyjs()
    return gzip.decompress(BUNDLE.read_bytes()).decode("utf-8")
