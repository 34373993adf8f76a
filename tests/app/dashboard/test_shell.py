"""What a page is called, and whether there is one."""

import logging
import re
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from awqscope.app.dashboard.access import decide_access
from awqscope.app.dashboard.callbacks import ASSETS
from awqscope.app.dashboard.server import create_app, listen, open_socket
from awqscope.app.dashboard.shell import is_found, write_title
from awqscope.app.dashboard.urls import Page, link, read_address
from awqscope.app.store import Store
from tests.help.runs import write_run


def read(address: str) -> Page:
    parts = urlsplit(address)
    return read_address(parts.path, f"?{parts.query}" if parts.query else "")


@pytest.mark.parametrize(
    ("address", "title", "found"),
    [
        ("/", "Runs", True),
        ("/run/sample", "sample", True),
        ("/run/sample/block/5", "Block 5 · sample", True),
        ("/run/sample/block/8", "No such page", False),
        ("/run/sample/tokens?window=99", "Tokens · sample", True),
        ("/run/sample/recipe", "Recipe · sample", True),
        ("/run/sample/explain", "Explain · sample", True),
        ("/run/nobody", "No such run", False),
        ("/run/nobody/block/5", "No such run", False),
        ("/run/sample/elsewhere", "No such page", False),
        ("/nowhere", "No such page", False),
        ("/compare", "Compare", True),
        ("/compare?a=one&b=two", "one and two · Compare", True),
        ("/compare?runs=one/two/three", "3 runs · Compare", True),
        ("/trend?model=org/m", "org/m · Trend", True),
        ("/new", "New run", True),
    ],
)
def test_titles_say_where_one_is(tmp_path: Path, address: str, title: str, found: bool) -> None:
    write_run(tmp_path)
    store, page = Store(tmp_path), read(address)
    assert write_title(store, page, False) == f"{title} · awqscope"
    assert is_found(store, page, False) is found


def test_who_may_start_nothing_has_no_form(tmp_path: Path) -> None:
    page = read(link("new"))
    assert not is_found(Store(tmp_path), page, True)
    assert write_title(Store(tmp_path), page, True) == "No such page · awqscope"


def test_a_damaged_run_is_there(tmp_path: Path) -> None:
    (write_run(tmp_path) / "run.json").write_text("{")
    assert is_found(Store(tmp_path), read("/run/sample/block/99"), False)


def test_a_request_that_waits_for_another_is_no_news(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    access = decide_access("127.0.0.1", allow_remote=False, token=None, names=(), read_only=True)
    server = listen(create_app(Store(tmp_path), access), open_socket("127.0.0.1", 0))
    with caplog.at_level(logging.WARNING):
        server.task_dispatcher.queue_logger.warning("Task queue depth is %d", 1)
    server.close()
    assert not caplog.records


@pytest.mark.parametrize("address", ["/", "/run/sample/block/5"])
def test_the_first_page_says_what_it_is_before_any_script(tmp_path: Path, address: str) -> None:
    write_run(tmp_path)
    access = decide_access("127.0.0.1", allow_remote=False, token=None, names=(), read_only=False)
    client = create_app(Store(tmp_path), access).server.test_client()
    text = client.get(address).text
    assert f"<title>{write_title(Store(tmp_path), read(address), False)}</title>" in text
    assert 'class="skeleton"' in text and "/assets/icon.svg" in text
    assert client.get("/assets/icon.svg").mimetype == "image/svg+xml"


def test_no_two_scripts_have_a_name_in_common() -> None:
    """They share one scope: a second `const` of a name keeps all of its script from running."""
    made = re.compile(r"^(?:async +)?(?:const|let|var|class|function)\*? +(\w+)", re.MULTILINE)
    names = Counter(
        name for script in ASSETS.glob("*.js") for name in made.findall(script.read_text("utf-8"))
    )
    assert len(names) > 50 and not [name for name, count in names.items() if count > 1]
