"""The studies of a run and of a block, each started on its page, followed, and stopped."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.help.root import ROOT

if TYPE_CHECKING:
    from playwright import sync_api

pytestmark = pytest.mark.browser
expected = pytest.importorskip("playwright.sync_api").expect

# By study: its page, the heading of its card, and the button that starts it.
STARTED = {
    "why-5": ("/run/demo/block/5", "Why", "Find out why"),
    "alternatives": ("/run/demo", "Alternatives", "Measure the alternatives"),
    "tasks": ("/run/demo", "Tasks", "Run the tasks"),
    "activations": ("/run/demo", "Which blocks refuse int8 activations", "Measure int8 inputs"),
}


# What is typed before the button is pressed, by study.
TYPED = {
    "tasks": {
        "Tasks of lm-eval": "continuations",
        "Folder with further task files": str(ROOT / "examples" / "tasks"),
    }
}


@pytest.mark.parametrize("study", STARTED)
def test_it_is_started_and_stopped(page: "sync_api.Page", runs: Path, study: str) -> None:
    address, title, button = STARTED[study]
    page.goto(address)
    heading = page.get_by_role("heading", name=title, exact=True)
    card = page.locator("section.card", has=heading)
    for field, text in TYPED.get(study, {}).items():
        card.get_by_label(field).fill(text)
    card.get_by_role("button", name=button).click()
    expected(card).to_contain_text("◐ Measuring")
    log = runs / "demo" / "studies" / f"{study}.log"
    card.get_by_role("button", name="Stop").click()
    expected(card).to_contain_text("This was not measured")
    assert "awqscope" in log.read_text()
    expected(card.get_by_role("button", name=button)).to_be_visible()


def test_weights_are_looked_at_and_leafed_through(page: "sync_api.Page") -> None:
    page.goto("/run/demo/block/5/weights?linear=self_attn.v_proj")
    expected(page.locator("main")).to_contain_text("What the run itself holds")
    page.get_by_role("button", name="Look at the weights").click()
    expected(page.locator("main")).to_contain_text("is rounded worst")
    shown = page.locator("#weight-group h3")
    expected(shown).to_contain_text("values of key-value head")
    first = shown.inner_text()
    page.get_by_role("link", name="Group after →").click()
    expected(shown).not_to_have_text(first)
    page.get_by_role("link", name="← Group before").click()
    expected(shown).to_have_text(first)
