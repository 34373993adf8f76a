"""Advice on a calibration as it is printed, and the plan before it."""

from rich.console import Console

from awqscope.app.terminal.studies.calibration import show_calibration, write_plan
from awqscope.diagnose.studies.calibration.planning import NOTHING, Plan
from tests.help.calibrated import make_advice


def show(**changes: object) -> str:
    console = Console(width=200, record=True)
    with console.capture() as said:
        show_calibration(make_advice(**changes), console)
    return said.get()


def test_sentences_come_before_tables() -> None:
    said = show()
    assert said.index("64 calibration windows suffice") < said.index("Calibration ")
    for head in ("Gives back [95%]", "Equal ratios", "Calibrated on", "texts/code.txt"):
        assert head in said


def test_one_text_has_no_table_of_texts() -> None:
    advice = make_advice()
    kept = tuple(each for each in advice.calibrations if each.role not in ("text", "both"))
    said = show(calibrations=kept, columns=advice.columns[:1], domains=(), pairs=())
    assert "Calibrated on" not in said and "Equal ratios" not in said


def test_a_plan_in_a_line() -> None:
    plan = Plan(searches=9, tokens=(4096, 65536), models=10, windows=8, seconds=700.0)
    said = "9 searches of 4,096 to 65,536 tokens, 10 models measured on 8 windows: about 12 min"
    assert write_plan(plan) == said
    done = Plan(searches=0, tokens=(0, 0), models=3, windows=8, seconds=None)
    assert write_plan(NOTHING) == "nothing is searched or measured: the answer is kept"
    assert write_plan(done) == "3 models measured on 8 windows"
