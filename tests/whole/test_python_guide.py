"""The code of the guide to Python and of the notebook, carried out as it stands."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import awqscope
from awqscope.app.notebook.charts import CHARTS
from awqscope.app.notebook.frames import INDEXES
from tests.help.root import ROOT

GUIDE = (ROOT / "examples" / "guides" / "python.md").read_text(encoding="utf-8")
NOTEBOOK = ROOT / "examples" / "read_a_run.ipynb"
CODE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def read_cells() -> list[dict[str, Any]]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_the_guide_s_code_runs() -> None:
    """In one process, in the order of the page; what comments say is printed is."""
    code = "\n".join(CODE.findall(GUIDE))
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    said = re.findall(r"print\(.*?\) +# (sample done|pass 0)$", code, re.MULTILINE)
    assert len(said) == 2 and set(said) <= set(told.stdout.splitlines())
    assert "of the lost KL for" in told.stdout


def test_the_guide_has_every_name() -> None:
    for name in set(awqscope.__all__) - {"__version__"}:
        # Types of what functions give are named by those.
        if name[0].islower():
            assert f"awqscope.{name}" in GUIDE, name
    public = {
        name for name in dir(awqscope.Run) if not name.startswith("_") and name != "directory"
    }
    for name in public - {"summary"}:
        assert f"run.{name}" in GUIDE, name
    for names in (CHARTS, INDEXES):
        assert all(f"`{name}`" in GUIDE for name in names)
    for name, index in INDEXES.items():
        assert f"| `{name}` | {', '.join(f'`{each}`' for each in index)} |" in GUIDE
    charts = GUIDE[GUIDE.index("## Charts") : GUIDE.index("## The gate")]
    for names, options in re.findall(r"^\| (`[^|]*?) \| ([^|]*?) ?\|", charts, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            assert re.findall(r"`(\w+)`", options) == list(CHARTS[name].options), name


def test_the_notebook_is_clean() -> None:
    """Nothing that was printed, counted or is of one machine; every cell is Python."""
    cells = read_cells()
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|work|tmp|Users)/", text) and len(text) < 20_000
    assert all(
        not cell["outputs"] and cell["execution_count"] is None
        for cell in cells
        if cell["cell_type"] == "code"
    )
    for cell in cells:
        if cell["cell_type"] == "code":
            ast.parse("".join(cell["source"]))
    assert json.loads(text)["metadata"]["language_info"] == {"name": "python"}


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel of its own, as Jupyter does: what it shows is what a reader sees."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    folder = {"metadata": {"path": str(NOTEBOOK.parent)}}
    client = nbclient.NotebookClient(notebook, timeout=600, resources=folder, kernel_name="python3")
    client.execute(env={**os.environ, "PYTHONPATH": f"{ROOT / '.package'}:{ROOT}"})
    shown = [
        output["data"]
        for cell in notebook.cells
        if cell["cell_type"] == "code"
        for output in cell["outputs"]
        if "data" in output
    ]
    markup = "".join(data.get("text/html", "") for data in shown)
    assert "<svg" in markup and "Block 5 stands out" in markup and "all 9 limits hold" in markup
    figures = [data for data in shown if "application/vnd.plotly.v1+json" in data]
    assert len(figures) == 2
    printed = [
        o for c in notebook.cells for o in c.get("outputs", ()) if o["output_type"] == "stream"
    ]
    assert "4.5 bits a weight" in printed[0]["text"]
    assert not [
        o for c in notebook.cells for o in c.get("outputs", ()) if o["output_type"] == "error"
    ]
