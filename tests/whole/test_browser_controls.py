"""Every control of every page, by the role and name that a reader of the screen hears: that it is
there, that there is no other, and that using it does something."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from awqscope.app.dashboard.urls import OPTIONS
from awqscope.diagnose.gate.criteria import Criterion
from awqscope.diagnose.gate.own import SETTABLE
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.notes import Change, change_notes
from tests.help.browsing import ROOT, change_record, copy_sample
from tests.help.runs import read_sample
from tests.help.weighed import keep_weights
from tests.whole import (
    test_browser,
    test_browser_calibrate,
    test_browser_probe,
    test_browser_studies,
)

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")

Control = tuple[str, str]


def write_limit_label(criterion: Criterion) -> str:
    """What the field of a limit is called; digits are #."""
    side = "at most" if criterion.upper else "at least"
    return re.sub(r"\d+", "#", f"{criterion.title}, {side}")


ROLES = (
    "button",
    "checkbox",
    "combobox",
    "link",
    "listbox",
    "menuitem",
    "radio",
    "slider",
    "spinbutton",
    "switch",
    "tab",
    "textbox",
)
LISTED = re.compile(rf"""\s*- '?({"|".join(ROLES)}) "((?:[^"\\]|\\.)*)\"""")
DRAWN_BESIDE = ("radio", "switch")
# What every page of a run has, and every page with a chart.
RUN = {("link", name) for name in ("Runs", "demo", "Overview", "Tokens", "Recipe", "Explain")}
SAVES = tuple(f"Save as {kind}" for kind in ("CSV", "PNG", "SVG"))
CHART = {("button", name) for name in (*SAVES, "Zoom", "Reset axes")}
CHART |= {("summary", "The same as a table")}
# Where there are more rows than are shown at once.
TURNS = {("button", name) for name in ("Previous", "Next", "All")}
HEADER = {("link", name) for name in ("awqscope", "Runs", "Compare", "New run")}
HEADER |= {("button", "Light or dark")}
# What both forms have, and what only that of a run has.
NEW = {("link", name) for name in ("Runs", "A model to quantize", "A checkpoint made elsewhere")}
NEW |= {("button", "Start"), ("button", "What it will take"), ("summary", "More options")}
FIELDS = (
    *("Name of the run", "Validation texts", "Windows", "Tokens in a window", "Robust z-score"),
    *("Times the median", "ΔPPL above", "Worst blocks", "Device", "Precision", "Workers"),
    *("Memory", "Seed", "Sweep", "Windows of the sweep"),
)
RUN_FIELDS = (
    *("Model", "Revision", "Calibration text", "Bits", "Bits of promoted units", "Group size"),
    *("Search", "Bits a weight", "Least recovery"),
    *("Calibration windows", "Tokens in a calibration window", "Units kept at # bits"),
    *("Units measured exactly", "Type of the checkpoint"),
)
NEW |= {("textbox", name) for name in FIELDS}
MOVED = {("textbox", "Directory of the model"), ("button", "Use it")}
# A table a page: the name of the page in app/dashboard/urls.py, and its controls. Digits are #;
# what several parts of a page have stands once. A table under a chart is open. After a page's name
# may stand when it has others: those alone are used then.
CRITERIA = [criterion for criteria in SETTABLE.values() for criterion in criteria]
STUDY_FIELDS = (
    "Calibration windows",
    "Other calibration texts",
    "Other texts to measure on",
    "Checkpoints of other tools",
    "Method",
    "Windows",
    "Tasks of lm-eval",
    "Folder with further task files",
    "Documents of each task",
)
LINEARS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
LIMITS = {("textbox", write_limit_label(each)) for each in CRITERIA if not each.is_demand}
LIMITS |= {("switch", f"{each.title} {each.meaning}") for each in CRITERIA if each.is_demand}
LIMITS |= {("summary", name) for name in ("Try other limits", "Drift from a baseline")}
LIMITS |= {("switch", "Judge the uniform model, not mixed")}
LIMITS |= {("switch", "Left out where no baseline is given")}
LIMITS |= {("switch", "Left out where no task was run")}
LIMITS |= {("summary", "Tasks")}
LIMITS |= {("button", "Save beside the run"), ("link", "every limit")}
CONTROLS: dict[str, set[Control]] = {
    "runs": {
        ("button", "Compare"),
        ("button", "Save as CSV"),
        ("textbox", "Filter the runs"),
        ("checkbox", "Press Space to toggle row selection (unchecked)"),
        ("link", "demo"),
        ("link", "other"),
    },
    "run": RUN
    | CHART
    | TURNS
    | LIMITS
    | {("radio", name) for name in ("KL", "ΔPPL", "linear", "log")}
    | {("link", f"#.{unit}") for unit in ("qkv", "o", "gate_up", "down")}
    | {
        ("link", "Block #"),
        ("summary", "Hashes of the model's files"),
        ("summary", "Where the checkpoint goes"),
        ("link", "New run like this one"),
    }
    | {("textbox", name) for name in (*STUDY_FIELDS, "Name", "Tags", "Add a note")}
    | {("switch", "Archived Lists leave it out unless they are asked for it."), ("button", "Keep")}
    | {("switch", "Each block alone, too Takes many times as long.")}
    | {
        ("button", name)
        for name in (
            *("Search and measure", "Measure the alternatives", "Measure int# inputs"),
            "Run the tasks",
        )
    },
    "block": RUN
    | CHART
    | {("link", f"#.{unit}") for unit in ("qkv", "o", "gate_up", "down")}
    | {("radio", f"into {unit}") for unit in ("qkv", "o", "gate_up", "down")}
    | {
        ("radio", "output"),
        ("link", "← Block #"),
        ("link", "Block # →"),
        ("link", "window #, token #"),
        *(("link", f"weights of #.{unit}") for unit in ("qkv", "o", "gate_up", "down")),
        *(("link", name) for name in LINEARS),
    }
    | {("button", name) for name in ("Find out why", "Try what would help")}
    | {("textbox", name) for name in ("Windows", "Other calibration texts")},
    "weights": RUN
    | CHART
    | {("link", name) for name in LINEARS}
    | {("link", "All of block #"), ("link", "← Block #"), ("link", "Block # →")}
    | {("button", "Look at the weights")},
    "weights looked": RUN
    | CHART
    | {("link", name) for name in LINEARS if name in ("self_attn.v_proj", "mlp.down_proj")}
    | {("link", name) for name in ("All of block #", "← Block #", "Block # →")}
    | {("link", "#:#"), ("link", "← Group before"), ("link", "Group after →")}
    | {("button", "Look at the weights"), ("summary", "Measure again")},
    "tokens": RUN
    | CHART
    | TURNS
    | {("radio", name) for name in ("Uniform", "Mixed", "KL", "ΔNLL")}
    | {("textbox", name) for name in ("Tokens", "With the text", "Damage from")}
    | {
        ("listbox", "The text. Arrow keys move from token to token, Enter shows one."),
        ("link", "Block #"),
        ("link", "#"),
        ("link", "window #, token #"),
    },
    "recipe": RUN
    | CHART
    | TURNS
    | {("combobox", name) for name in ("Blocks", "Units", "Width", "Unit of the budget")}
    | {
        ("slider", "Budget along the frontier"),
        ("textbox", "Budget"),
        ("button", "Take the best"),
        ("button", "Set together"),
        ("checkbox", "Only blocks with units not at # bits"),
        ("textbox", "Written for"),
        ("button", "Back to the run's recipe"),
        ("button", "Best at this size"),
        ("button", "Download recipe"),
        ("button", "Requantize and measure"),
    },
    "explain": RUN | {("textbox", "Prompt"), ("textbox", "Tokens"), ("button", "Explain")},
    "compare": CHART
    | {
        ("link", "Runs"),
        ("link", "Several in one table"),
        ("textbox", "Run A"),
        ("textbox", "Run B"),
        ("radio", "KL"),
        ("radio", "ΔPPL"),
        ("radio", "mixed"),
        ("radio", "uniform #-bit"),
    },
    "trend": CHART
    | {("link", name) for name in ("Compare", "demo", "other", "Side by side")}
    | {("textbox", "Model"), ("textbox", "Releases")},
    "new": NEW
    | {("textbox", name) for name in RUN_FIELDS}
    | {
        ("switch", "Symmetric No zero points at the low width."),
        ("switch", "Promote whole blocks Not the fewest of their units that repair them."),
    },
    "missing": {("link", "All runs")},
}
CONTROLS["runs noted"] = CONTROLS["runs"] | {
    ("textbox", "Only runs with these tags"),
    ("switch", "# archived too"),
}
CONTROLS["compare many"] = CHART | {
    ("link", "Runs"),
    ("link", "One model over its releases"),
    ("textbox", "Runs to compare"),
    ("textbox", "Held against"),
    ("link", "demo"),
    ("link", "other"),
    ("link", "side by side"),
    ("radio", "Linear"),
    ("radio", "Log"),
}
CONTROLS["new comparison"] = NEW | {("textbox", name) for name in ("Reference", "Candidate")}
CONTROLS["recipe moved"] = CONTROLS["recipe"] | MOVED
CONTROLS["explain moved"] = CONTROLS["explain"] | MOVED
ADDRESSES = {
    "runs": "/",
    "run": "/run/demo",
    "block": "/run/demo/block/5",
    "weights": "/run/demo/block/5/weights?linear=mlp.up_proj",
    "weights looked": "/run/demo/block/5/weights?linear=self_attn.v_proj&group=5%3A0",
    "tokens": "/run/demo/tokens",
    "recipe": "/run/demo/recipe",
    "explain": "/run/demo/explain",
    "compare": "/compare?a=demo&b=other",
    "trend": "/trend?runs=demo/other",
    "compare many": "/compare?runs=demo/other",
    "new": "/new",
    "missing": "/nowhere",
    "runs noted": "/",
    "new comparison": "/new?kind=compare",
    "recipe moved": "/run/demo/recipe",
    "explain moved": "/run/demo/explain",
}
# Where the run's model is not found, what needs it cannot be pressed.
IDLE = {"recipe moved": "Requantize and measure", "explain moved": "Explain"}
# What starts a process of a minute is used by a test of its own.
ELSEWHERE = {
    (
        "button",
        "Requantize and measure",
    ): test_browser.test_widths_are_switched_downloaded_and_requantized,
    ("button", "Search and measure"): test_browser_calibrate.test_it_is_started_and_stopped,
    (
        "button",
        "Look at the weights",
    ): test_browser_studies.test_weights_are_looked_at_and_leafed_through,
    ("button", "Try what would help"): test_browser_probe.test_it_is_started_and_stopped,
    **{
        ("button", re.sub(r"\d+", "#", button)): test_browser_studies.test_it_is_started_and_stopped
        for _, _, button in test_browser_studies.STARTED.values()
    },
}
# What a visitor sees of a page, and can tell by its marks.
SEEN = """() => {
  const all = (what) => [...document.querySelectorAll(what)];
  return JSON.stringify([
    location.href,
    document.documentElement.dataset.mantineColorScheme,
    document.querySelector("main").innerText,
    all("input, select, textarea").map((one) => [one.value, one.checked, one.ariaChecked]),
    all("details").map((one) => one.open),
    all(".xtick").map((one) => one.textContent),
  ]);
}"""


def open_page(page: "sync_api.Page", name: str) -> None:
    """Go to a page and wait for all of it: charts are drawn, tables under them open."""
    page.goto(ADDRESSES[name])
    page.locator("h1").wait_for()
    sync_api.expect(page.locator(".waits")).to_have_count(0)
    for chart in page.locator("main .chart").all():
        chart.locator(".main-svg").first.wait_for()
    if page.locator("main .grid").count():
        page.locator("main .ag-center-cols-container .ag-row").first.wait_for()
    page.evaluate("document.querySelectorAll('main details').forEach((one) => (one.open = true))")
    # The tables that were opened by that are in the page a moment later.
    for opened in page.locator("main details:has(> summary:text-is('The same as a table'))").all():
        opened.locator("table").wait_for()


def list_controls(part: "sync_api.Locator") -> set[Control]:
    """The controls in a part of a page that can be seen, except the hints of terms, which are
    buttons too: test_browser_ship.py uses those."""
    found = {
        (match[1], re.sub(r"\d+", "#", match[2].replace("''", "'")))
        for line in part.aria_snapshot().splitlines()
        if (match := LISTED.match(line))
    }
    summaries = part.locator("summary:visible").all_inner_texts()
    terms = {re.sub(r"\d+", "#", text) for text in part.locator(".term").all_inner_texts()}
    found -= {("button", text) for text in terms}
    return found | {("summary", text.strip()) for text in summaries}


def find(page: "sync_api.Page", control: Control) -> "sync_api.Locator":
    """The first control of a role and name."""
    role, name = control
    if role == "summary":
        return page.locator("main summary", has_text=name).first
    pattern = re.compile("^" + re.escape(name).replace(r"\#", r"\d+") + "$")
    found = page.locator("main").get_by_role(role, name=pattern)
    # Mantine draws these beside an input that has no size.
    return found.first if role in DRAWN_BESIDE else found.locator("visible=true").first


def fill_in(page: "sync_api.Page", field: "sync_api.Locator") -> None:
    """Change a field: choose another of a list, or type."""
    if field.get_attribute("aria-haspopup") == "listbox":
        field.click()
        page.get_by_role("option", selected=False).locator("visible=true").first.click()
    else:
        value = field.input_value()
        field.fill("7" if value != "7" else "8")
        field.press("Tab")


def press(page: "sync_api.Page", part: "sync_api.Locator") -> None:
    part.focus()
    page.keyboard.press("Space")


def walk_text(page: "sync_api.Page", text: "sync_api.Locator") -> None:
    text.focus()
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)


def compare_two(page: "sync_api.Page", button: "sync_api.Locator") -> None:
    for row in page.locator(".ag-row input[type=checkbox]").all():
        row.check()
    button.click()


def wait_for_change(page: "sync_api.Page", before: str, control: Control) -> None:
    """Until a page is no longer seen as `before`."""
    try:
        page.wait_for_function(f"(before) => ({SEEN})() !== before", arg=before)
    except sync_api.TimeoutError:
        pytest.fail(f"{control} does nothing")


def zoom_out(page: "sync_api.Page", button: "sync_api.Locator") -> None:
    plot = "document.querySelector('main .js-plotly-plot')"
    page.evaluate(f"window.Plotly.relayout({plot}, {{'xaxis.range': [1.2, 1.6]}})")
    before = page.evaluate(SEEN)
    button.dispatch_event("click")
    wait_for_change(page, before, ("button", "Reset axes"))


def save(page: "sync_api.Page", button: "sync_api.Locator") -> None:
    with page.expect_download() as download:
        button.dispatch_event("click")
    assert Path(download.value.path()).stat().st_size > 100


def change_first(page: "sync_api.Page", button: "sync_api.Locator") -> None:
    test_browser.choose_width(page, "0.down", "8")
    page.wait_for_url(lambda url: "0.down" in url)
    button.click()
    page.wait_for_url(lambda url: "0.down" not in url)


def choose(value: str) -> "Use":
    return lambda page, select: select.select_option(value)


def turn_first(page: "sync_api.Page", button: "sync_api.Locator") -> None:
    places = page.locator(".turns [role=status]").first
    first = places.inner_text()
    page.get_by_role("button", name="Next", exact=True).first.click()
    sync_api.expect(places).not_to_have_text(first)
    button.click()
    sync_api.expect(places).to_have_text(first)


def plan_demo(page: "sync_api.Page", button: "sync_api.Locator") -> None:
    demo = ROOT / "examples" / "demo"
    page.get_by_label("Model", exact=False).first.fill(str(demo))
    page.get_by_label("Calibration text").fill(str(demo / "calib.txt"))
    page.get_by_label("Validation texts").fill(str(demo / "valid.txt"))
    sync_api.expect(page.locator("#new-plan")).to_be_empty()
    button.click()
    sync_api.expect(page.locator("#new-plan")).not_to_be_empty()


Use = Callable[["sync_api.Page", "sync_api.Locator"], Any]
# How a control is used; whether that is seen is asked of those that do not see to it themselves.
BY_NAME: dict[Control, Use] = {
    ("button", "Compare"): compare_two,
    ("button", "Download recipe"): save,
    **{("button", name): save for name in SAVES},
    ("button", "Reset axes"): zoom_out,
    ("button", "Zoom"): lambda page, button: button.dispatch_event("click"),
    ("button", "Back to the run's recipe"): change_first,
    ("button", "Best at this size"): change_first,
    ("button", "Previous"): turn_first,
    ("button", "What it will take"): plan_demo,
    ("combobox", "Blocks"): choose("range"),
    ("combobox", "Units"): choose("o"),
    ("combobox", "Width"): choose("1"),
    ("combobox", "Unit of the budget"): choose("mb"),
}
BY_ROLE: dict[str, Use] = {
    "button": lambda page, button: button.click(),
    "checkbox": lambda page, box: box.check(),
    "link": lambda page, link: link.click(),
    "listbox": walk_text,
    "radio": press,
    "slider": lambda page, slider: slider.press("ArrowRight"),
    "summary": lambda page, summary: summary.click(),
    "switch": press,
    "textbox": fill_in,
}
# These see to it themselves, or change nothing that is not as they would have it.
UNSEEN = {("button", name) for name in ("Download recipe", *SAVES, "Zoom")}
UNSEEN |= {("button", name) for name in ("Reset axes", "Back to the run's recipe")}
UNSEEN |= {("button", "Best at this size"), ("button", "Previous")}
UNSEEN |= {("button", "What it will take")}


def use(page: "sync_api.Page", name: str, control: Control) -> None:
    """Use a control; something is seen of it, or it leads where it is already."""
    part = find(page, control)
    before = page.evaluate(SEEN)
    leads_here = control[0] == "link" and part.evaluate("(one) => one.href === location.href")
    (BY_NAME.get(control) or BY_ROLE[control[0]])(page, part)
    if control not in UNSEEN and not leads_here:
        wait_for_change(page, before, control)
    if control[0] == "link":
        page.locator("h1").wait_for()


def test_every_page_has_a_table() -> None:
    assert set(CONTROLS) == set(ADDRESSES) and {name.split()[0] for name in CONTROLS} == set(
        OPTIONS
    )
    known = {control for controls in CONTROLS.values() for control in controls}
    assert set(ELSEWHERE) <= known and known >= set(BY_NAME) | UNSEEN


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_is_there_and_does_something(
    page: "sync_api.Page", runs: Path, name: str
) -> None:
    copy_sample(runs, "other")
    if name == "weights looked":
        keep_weights(runs / "demo")
    if name == "trend":
        # Without another model there would be nothing to choose.
        source = read_sample()["source"] | {"hashes": {"model.safetensors": "c0ffee"}}
        change_record(copy_sample(runs, "another"), model="org/another", source=source)
    if name in IDLE:
        change_record(runs / "demo", model="/nowhere/model")
    if name == "runs noted":
        change_notes(RunDirectory(runs / "demo"), Change(tags=("release",)))
        change_notes(RunDirectory(copy_sample(runs, "older")), Change(archived=True))
    page.set_viewport_size({"width": 1440, "height": 900})
    # A list that is come back to is as it was left: here each control finds it new.
    page.add_init_script("sessionStorage.clear()")
    open_page(page, name)
    assert list_controls(page.locator("header.top")) == HEADER
    assert list_controls(page.locator("main")) == CONTROLS[name]
    if name in IDLE:
        sync_api.expect(page.get_by_role("button", name=IDLE[name])).to_be_disabled()
    plain = name.split()[0]
    used = CONTROLS[name] - set(ELSEWHERE) - (CONTROLS[plain] if name != plain else set())
    # What is on already is chosen after another.
    order = sorted(used, key=lambda each: (each[0] == "radio", each))
    for control in order:
        if control[0] == "radio" and find(page, control).is_checked():
            # From the control itself: a group that is drawn anew has another name.
            group = find(page, control).locator("xpath=ancestor::*[@role='radiogroup'][1]")
            press(page, group.get_by_role("radio", checked=False).first)
        use(page, name, control)
        if control[0] != "radio":
            open_page(page, name)


def test_every_control_around_the_pages_does_something(page: "sync_api.Page") -> None:
    for control in sorted(HEADER):
        open_page(page, "missing")
        part = page.locator("header.top").get_by_role(control[0], name=control[1], exact=True)
        before = page.evaluate(SEEN)
        part.click()
        wait_for_change(page, before, control)
