"""May it ship? What a newcomer can say from the first screen, and a policy that is tried, saved and
taken away on the page."""

from pathlib import Path

import pytest

from awqscope.app.words.terms.table import TERMS
from tests.help.browsing import ROOT, change_record, copy_sample
from tests.help.runs import write_comparison

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")

SCREEN = 900
SIZES = [(1440, "light"), (1440, "dark"), (800, "light"), (390, "light")]
WIDE = 1440
# Model, whether it may ship and why, how bad, which block, what was done, and what it cost.
TOLD = {
    "demo": (
        *("examples/demo: llama, 8 blocks", "✓ May ship: all 9 limits hold"),
        *("The likeliest token changed in 33 of 100 places; now in 8.", "Block 5 stands out"),
        "Units 5.qkv and 5.o at 8 bits give back 94.9% of the lost KL",
    ),
    "smollm2": (
        *("SmolLM2-135M", "✕ May not ship: PPL ratio 1.1071 is above 1.03"),
        "Of the other limits 3 are not held and 2 are undecided.",
        *("changed in 18 of 100 places; now in 17", "Block 29 stands out"),
    ),
    "candidate": (
        *(
            "us/mixed (4/8-bit compressed-tensors) against examples/demo",
            "✕ May not ship: KL share",
        ),
        *("changed in 8 of 100 places.", "Block 5 stands out"),
    ),
}
COST = {
    "demo": ("67.3% → 91.8%", "5.06 MB", "units at 4.30 bits a weight"),
    "smollm2": ("82.1% → 83.1%", "115.23 MB", "units at 4.41 bits a weight"),
    "candidate": ("91.8%", "5.06 MB"),
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    copy_sample(folder, "demo")
    write_comparison(folder)
    (folder / "smollm2").symlink_to(ROOT / "reports" / "sample-smollm2")
    return folder


def read_screen(page: "sync_api.Page") -> str:
    """The text of a page whose lines lie within the first screen."""
    lines = page.evaluate(
        """(height) => [...document.querySelectorAll(
             "main h1, main p, main .tile, main .ag-cell, main .run-card")]
           .filter((one) => one.checkVisibility() && one.getBoundingClientRect().bottom <= height)
           .map((one) => one.innerText)""",
        SCREEN,
    )
    return " ".join(" ".join(lines).split())


@pytest.mark.parametrize("name", TOLD)
def test_the_first_screen_says_what_a_newcomer_asks(page: "sync_api.Page", name: str) -> None:
    page.goto(f"/run/{name}")
    page.locator(".tiles").wait_for()
    for width, scheme in SIZES:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": SCREEN})
        said = read_screen(page)
        # On a phone the numbers come after the sentences that say them.
        for told in (*TOLD[name], *(COST[name] if width == WIDE else ())):
            assert told in said, (width, told, said)
        # Charts follow a window that was made narrower a moment later.
        page.wait_for_function("() => document.documentElement.scrollWidth <= window.innerWidth")


def test_the_answer_stands_beside_the_title_and_leads_to_every_limit(
    page: "sync_api.Page", runs: Path
) -> None:
    page.set_viewport_size({"width": WIDE, "height": SCREEN})
    page.goto("/run/smollm2")
    title, answer = page.locator("h1").bounding_box(), page.locator("#ship").bounding_box()
    assert title and answer and abs(answer["y"] - title["y"]) < 60 and answer["x"] > title["x"]
    page.get_by_role("link", name="every limit").click()
    gate = page.locator("#gate").bounding_box()
    assert gate and gate["y"] < SCREEN
    change_record(runs / "demo", state="failed", error={"message": "no room", "remedy": ""})
    page.goto("/run/demo")
    sync_api.expect(page.locator("#ship")).to_have_text("○ Not judged: the run failed")


def test_the_list_says_which_runs_may_ship(page: "sync_api.Page") -> None:
    page.set_viewport_size({"width": WIDE, "height": SCREEN})
    page.goto("/")
    cells = page.locator(".ag-center-cols-container .ag-row .ag-cell[col-id=ship]")
    for said in ("✓ May ship", "✕ May not ship", "PPL ratio 1.1071 is above 1.03"):
        sync_api.expect(cells.filter(has_text=said).first).to_be_visible()
    first = page.locator(".ag-header-cell:visible").nth(1)
    sync_api.expect(first).to_contain_text("May it ship?")
    page.set_viewport_size({"width": 390, "height": SCREEN})
    sync_api.expect(page.locator(".run-card").first).to_contain_text("May")
    assert "May not ship" in read_screen(page)


def test_a_policy_is_tried_saved_and_taken_away(page: "sync_api.Page", runs: Path) -> None:
    page.goto("/run/demo")
    page.locator("summary", has_text="Try other limits").click()
    field, own = page.get_by_label("KL, mean, at most"), runs / "demo" / "policy.toml"
    answer, ship = page.locator("#policy-answer"), page.locator("#ship")
    field.fill("0.01")
    sync_api.expect(answer).to_contain_text("✕ May not ship: mean KL 0.01179 is above 0.01")
    sync_api.expect(page.locator("#policy-tried caption")).to_contain_text("not saved")
    sync_api.expect(ship).to_contain_text("May ship: all 9 limits hold")
    field.fill("much")
    error = page.locator("#gate .fields").get_by_text(
        "“KL, mean, at most” is “much”: give a number such as 0.05"
    )
    sync_api.expect(error).to_be_visible()
    sync_api.expect(answer).to_contain_text("Not judged: a field cannot be used")
    said = page.locator("#policy-said")
    page.get_by_role("button", name="Save beside the run").click()
    sync_api.expect(said).to_contain_text("Not saved: “KL, mean, at most” is “much”")
    assert not own.exists()
    field.fill("0.01")
    sync_api.expect(error).to_have_count(0)
    # Enter saves what the field holds now.
    field.press("Enter")
    sync_api.expect(ship).to_contain_text("May not ship: mean KL 0.01179 is above 0.01")
    sync_api.expect(ship).to_contain_text("By the run's own policy")
    assert "max_kl = 0.01\n" in own.read_text(encoding="utf-8")
    reset = page.get_by_role("button", name="Back to the default policy")
    page.once("dialog", lambda dialog: dialog.dismiss())
    reset.click()
    assert own.exists()
    page.once("dialog", lambda dialog: dialog.accept())
    reset.click()
    sync_api.expect(ship).to_contain_text("May ship: all 9 limits hold")
    assert not own.exists()


def test_every_term_of_a_page_has_its_hint(page: "sync_api.Page") -> None:
    """By pointer, by keys and by touch; read out as the description of the term."""
    meanings = {term.plain for term in TERMS}
    for path in ("/run/demo/block/5", "/run/candidate", "/"):
        page.goto(path)
        page.locator("main .term").first.wait_for()
        for term in page.locator("main p .term, main dt .term").all():
            described = term.get_attribute("aria-describedby")
            text = page.locator(f'[id="{described}"]').text_content()
            assert text in meanings and term.inner_text()
    page.goto("/run/demo")
    term = page.locator("main .verdict").get_by_role("button", name="KL", exact=True)
    shown = page.locator("[role=tooltip]:not(.unseen)")
    sync_api.expect(shown).to_have_count(0)
    for act in (term.hover, term.focus, term.click):
        act()
        sync_api.expect(shown).to_contain_text("KL(reference ‖ model) over the whole vocabulary")
        page.keyboard.press("Escape")
        sync_api.expect(shown).to_have_count(0)
        page.mouse.move(0, 0)
        term.blur()
