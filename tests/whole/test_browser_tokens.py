"""The tokens page asks the text of either model, and keeps what was asked in its address."""

import json
import re
from pathlib import Path

import pytest

from tests.help.browsing import change_record

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api")


def test_a_text_is_asked_by_keys_and_the_address_keeps_it(page: "sync_api.Page") -> None:
    page.goto("/run/demo/tokens")
    finds, lists = page.locator("#token-finds"), page.locator("#token-lists")
    sync_api.expect(page.locator("main .card").first).to_contain_text("589 still changed")
    sync_api.expect(finds).to_be_empty()
    page.get_by_role("radio", name="Mixed").focus()
    page.keyboard.press("Space")
    sync_api.expect(page.locator("#window-card")).to_contain_text("in the mixed model")
    page.get_by_role("textbox", name="Tokens").press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    sync_api.expect(page.get_by_role("textbox", name="Tokens")).not_to_have_value("All")
    page.get_by_role("textbox", name="With the text").fill("of THE")
    sync_api.expect(finds).to_have_text(re.compile("^\\d\\d? tokens in .* in the mixed model.$"))
    page.wait_for_url(lambda url: "model=mixed" in url and "text=of+THE" in url)
    said, first = finds.inner_text(), lists.locator("tbody tr").first.inner_text()
    page.reload()
    sync_api.expect(finds).to_have_text(said)
    sync_api.expect(lists.locator("tbody tr").first).to_have_text(first, use_inner_text=True)
    sync_api.expect(page.get_by_role("radio", name="Mixed")).to_be_checked()
    # A link from the list keeps asking the same, and leads to a token that was found: one of
    # another window, so that nothing of the page before can be taken for it.
    link = lists.get_by_role("link", name=re.compile("^window")).last
    window, token = re.findall(r"\d+", link.inner_text())
    sync_api.expect(page.locator("#window-card h2")).not_to_have_text(f"Window {window}")
    link.click()
    sync_api.expect(page.locator("#window-card h2")).to_have_text(f"Window {window}")
    sync_api.expect(page.locator("#token-card h2")).to_contain_text(f"Token {token}:")
    sync_api.expect(page.locator("#text-view .here.found")).to_have_count(1)
    sync_api.expect(finds).to_have_text(said)
    assert "text=of+THE" in page.url
    page.get_by_role("textbox", name="With the text").fill("no such text anywhere")
    sync_api.expect(finds).to_have_text("No token is like that.")


def test_all_windows_are_listed_with_their_texts(page: "sync_api.Page", runs: Path) -> None:
    path = runs / "demo" / "run.json"
    definition = json.loads(path.read_text(encoding="utf-8"))["ppl_definition"]
    texts = [
        {"text": "/data/a/valid.txt", "sha256": "0", "first_window": 0, "windows": 15},
        {"text": "/data/b/valid.txt", "sha256": "1", "first_window": 15, "windows": 25},
    ]
    change_record(runs / "demo", ppl_definition=definition | {"slices": texts})
    page.goto("/run/demo/tokens?window=14")
    sync_api.expect(page.locator("#window-card .summary")).to_contain_text("tokens of a/valid.txt")
    card = page.locator("#token-lists .card").first
    # The page of the list with the window that is shown.
    sync_api.expect(card.locator("tr.chosen")).to_contain_text("14")
    card.get_by_role("button", name="All").click()
    sync_api.expect(card.locator("tbody tr")).to_have_count(40)
    for row in card.locator("tbody tr").all():
        window, text = row.locator("td").all_inner_texts()[:2]
        assert text == ("a/valid.txt" if int(window) < 15 else "b/valid.txt")


def test_what_is_not_there_is_said(page: "sync_api.Page") -> None:
    fallen = page.locator(".fallen")
    for address, words in {
        "/run/demo/tokens?position=3": "A token is of a window, and none is named: the worst is",
        "/run/demo/tokens?window=9999": "There is no window 9999: window 5, the worst, is shown.",
        "/run/demo/tokens?window=3&position=256": "Window 3 has no token 256, only 0 to 255",
        "/run/demo/tokens?model=other": "There is no model “other”: uniform is shown.",
        "/run/demo/block/5?site=k": "There are no activations into k here: into o is shown.",
        "/run/demo?scale=cubic": "There is no scale “cubic”: linear is shown.",
        "/run/demo/recipe?bits=9.qkv:8": "There is no 9.qkv:8: the rest is shown.",
        "/new?like=nobody": "There is no run “nobody” to take it from: an empty form is shown.",
    }.items():
        page.goto(address)
        sync_api.expect(fallen).to_contain_text(words)
    page.goto("/run/demo/tokens?window=3&position=255")
    sync_api.expect(page.locator("#token-card h2")).to_contain_text("Token 255:")
    sync_api.expect(fallen).to_have_count(0)


def test_a_unit_opens_its_block_on_what_flows_into_it(page: "sync_api.Page") -> None:
    page.goto("/run/demo/block/5")
    sites = page.get_by_role("radiogroup", name="Site")
    sync_api.expect(sites.get_by_role("radio")).to_have_count(5)
    assert [one.get_attribute("value") for one in sites.get_by_role("radio").all()] == [
        *("qkv", "o", "gate_up", "down", "output")
    ]
    # The block's worst unit, though others come before it.
    sync_api.expect(page.get_by_role("radio", name="into o", exact=True)).to_be_checked()
    page.get_by_role("link", name="5.gate_up", exact=True).click()
    sync_api.expect(page.get_by_role("radio", name="into gate_up")).to_be_checked()
    page.goto("/run/demo")
    layer = page.locator("[id*='\"units\"'] .nsewdrag").first
    layer.scroll_into_view_if_needed()
    box = layer.bounding_box()
    assert box is not None
    rows = page.locator("[id*='\"units\"'] .ytick text").evaluate_all(
        "all => all.map((one) => [one.getBoundingClientRect().y, one.textContent])"
    )
    assert [text for _, text in sorted(rows)] == ["qkv", "o", "gate_up", "down"]
    page.mouse.click(box["x"] + box["width"] * 2.5 / 8, box["y"] + box["height"] * 3.5 / 4)
    page.wait_for_url("**/run/demo/block/2?site=down")
    sync_api.expect(page.get_by_role("radio", name="into down")).to_be_checked()


def test_the_whole_column_of_a_block_opens_it(page: "sync_api.Page") -> None:
    page.goto("/run/demo")
    layer = page.locator("[id*='\"profile\"'] .nsewdrag").first
    layer.scroll_into_view_if_needed()
    box = layer.bounding_box()
    assert box is not None
    # High above block 2, whose bar is a pixel high.
    x, y = box["x"] + box["width"] * 2.6 / 8, box["y"] + box["height"] * 0.2
    page.mouse.move(x - 5, y)
    page.mouse.move(x, y)
    hover = page.locator("[id*='\"profile\"'] .hoverlayer")
    sync_api.expect(hover).to_contain_text("Block 2")
    for words in ("alone 0.00057 [", "up to here 0.00558 [", "if restored 0.23242 ["):
        sync_api.expect(hover).to_contain_text(words)
    page.mouse.click(x, y)
    page.wait_for_url("**/run/demo/block/2")


def test_a_prompt_stays_and_enter_asks(page: "sync_api.Page") -> None:
    page.goto("/run/demo/explain")
    prompt = page.get_by_label("Prompt", exact=True)
    page.get_by_label("Tokens").fill("99999")
    prompt.fill("one")
    prompt.press("Shift+Enter")
    prompt.press_sequentially("two")
    assert prompt.input_value() == "one\ntwo"
    said = page.locator("#explain-said")
    sync_api.expect(said).to_be_empty()
    prompt.press("Enter")
    sync_api.expect(said).to_contain_text("Not started")
    assert prompt.input_value() == "one\ntwo"
    page.get_by_role("link", name="Overview").click()
    sync_api.expect(prompt).to_have_count(0)
    page.get_by_role("link", name="Explain").click()
    sync_api.expect(page.get_by_label("Prompt", exact=True)).to_have_value("one\ntwo")
