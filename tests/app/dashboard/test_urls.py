"""Links of the dashboard: what is made is read again, and nothing typed into an address fails."""

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from awqscope.app.dashboard.urls import BETWEEN, OPTIONS, Page, link, query, read_address

# Names that a file system gives: any character but / and NUL; bytes that are no UTF-8 come as
# lone surrogates.
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
    | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF),
    min_size=1,
    max_size=60,
)
BLOCKS = st.integers(0, 999_999_999)


def read(address: str) -> Page:
    parts = urlsplit(address)
    assert not parts.scheme and not parts.netloc and not parts.fragment
    return read_address(parts.path, f"?{parts.query}" if parts.query else "")


@given(name=NAMES, block=BLOCKS)
@example(name="a b%20c", block=0)
@example(name="<script>alert(1)<", block=1)
@example(name="..", block=2)
@example(name="v1.2?x=1#y&z=+", block=3)
@example(name="模型 – é", block=4)
@example(name="\udcff", block=5)
def test_every_link_is_read_as_what_it_was_made_of(name: str, block: int) -> None:
    for page in ("run", "tokens", "recipe", "explain"):
        assert read(link(page, name)) == Page(page, name)
    for page in ("block", "weights"):
        assert read(link(page, name, block)) == Page(page, name, block)
    for page in ("runs", "compare", "trend", "new"):
        assert read(link(page)) == Page(page)


@given(a=NAMES, b=NAMES, metric=st.sampled_from(["kl", "delta_ppl"]))
def test_options_survive_the_address(a: str, b: str, metric: str) -> None:
    page = read(link("compare", a=a, b=b, measure=metric))
    assert page.option("measure") == metric
    for key, name in (("a", a), ("b", b)):
        printable = all(character >= " " for character in name)
        assert page.option(key) == (name if printable else "")


@given(names=st.lists(NAMES, max_size=12))
def test_names_of_several_runs_survive_the_address(names: list[str]) -> None:
    page = read(link("compare", runs=BETWEEN.join(names)))
    printable = all(character >= " " for name in names for character in name)
    assert page.names("runs") == (list(dict.fromkeys(names)) if printable else [])


@given(window=BLOCKS, position=BLOCKS)
def test_numbers_survive_the_address(window: int, position: int) -> None:
    page = read(link("tokens", "r", window=window, position=position))
    assert (page.number("window"), page.number("position")) == (window, position)
    assert read("/run/r/tokens").number("window") is None


def test_defaults_are_left_out() -> None:
    assert link("run", "r", metric="kl", scale="linear") == "/run/r"
    assert link("run", "r", metric="delta_ppl", scale=None) == "/run/r?metric=delta_ppl"
    assert query("tokens", window=None, position=0) == "?position=0"


@given(st.text() | st.none(), st.text() | st.none())
@example("/run/%ff%00", "?a=%ff&&&=;")
@example("/" * 50, "?" + "&".join(f"a{n}=1" for n in range(500)))
@example("/run/r/block/99999999999999999999", "?metric=kl&metric=ppl")
@example("/run/\ud800", "?a=\ud800")
def test_no_address_fails(path: str | None, search: str | None) -> None:
    page = read_address(path, search)
    assert page.name in OPTIONS
    for key in OPTIONS[page.name]:
        assert isinstance(page.option(key), str)


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/run",
        "/run/r/",
        "/run/r/block",
        "/run/r/block/x",
        "/run/r/tokens/1",
        "/run/a/b",
    ],
)
def test_what_is_no_page(path: str) -> None:
    assert read_address(path, "").name == ("run" if path == "/run/r/" else "missing")


@pytest.mark.parametrize(
    ("path", "search", "key", "value"),
    [
        ("/run/r", "?metric=<script>&scale=log", "metric", "kl"),
        ("/run/r", "?scale=LOG", "scale", "linear"),
        ("/run/r/tokens", "?window=-1", "window", ""),
        ("/run/r/tokens", "?window=1e3", "window", ""),
        ("/run/r/tokens", "?colour=red", "colour", "kl"),
        ("/run/r/recipe", "?bits=0.qkv:8,5.o:4", "bits", "0.qkv:8,5.o:4"),
        ("/run/r/recipe", "?bits=0.qkv:8;drop", "bits", ""),
        ("/compare", "?a=" + "x" * 301, "a", ""),
        ("/compare", "?a=x%0Ay", "a", ""),
    ],
)
def test_bad_values_fall_back(path: str, search: str, key: str, value: str) -> None:
    assert read_address(path, search).option(key) == value


def test_options_of_other_pages_are_dropped() -> None:
    assert read_address("/run/r", "?window=3&metric=delta_ppl").options == {"metric": "delta_ppl"}
