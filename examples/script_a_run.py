"""A run from Python, and what it leaves behind: `python -m examples.script_a_run MODEL TEXT OUT`.

Calibrates on the first text and, for brevity, measures on it too; keep them apart in earnest.
"""

import sys
from pathlib import Path

from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.stages.pipeline import run_pipeline
from awqscope.mixedprec.recipes.recipe import load_recipe


def main(model: str, text: str, out: str) -> None:
    """Run, then print the blocks by damage and the units that the recipe promotes."""
    spec = RunSpec(model=model, calib=text, valid=text, seq_len=256, windows=16, calib_windows=16)
    run = run_pipeline(spec, Path(out), lambda stage, done, total: print(f"{stage} {done}/{total}"))
    rows = [row for row in run.read_table("blocks").to_pylist() if row["view"] == "isolated"]
    for row in sorted(rows, key=lambda row: -row["kl"]):
        print(
            f"block {row['block']}: KL {row['kl']:.5f} [{row['kl_low']:.5f}, {row['kl_high']:.5f}]"
        )
    recipe = load_recipe(run.path / "recipe.json")
    print("promoted:", [name for name, bits in recipe.bits.items() if bits != spec.bits])
    print("recovered:", run.read_searched().measured.recovered)


if __name__ == "__main__":
    main(*sys.argv[1:4])
