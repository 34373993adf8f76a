"""Every link of the dashboard, made and read in one place.

A page is where you are and how you look at it: both are in the address, so that a link survives a
reload. What an address gets wrong falls back to the page's default, never to an error.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode

from awqscope.app.token_index import MEASURES, MODELS, WHICH

METRICS = ("kl", "delta_ppl")
SCALES = ("linear", "log")
# Models to compare of a run; an empty value means the run's default (`list_models`).
COMPARED = ("", "mixed", "uniform", "candidate")
# What can be started: see app/dashboard/jobs/requests.py.
KINDS = ("run", "compare")
NUMBER = re.compile(r"\d{1,9}")
AMOUNT = re.compile(r"\d{1,6}(?:\.\d{1,9})?")
PLACE = re.compile(r"\d{1,9}:\d{1,9}")
NAME = re.compile(r"[^\x00-\x1f]{1,300}")
# Names on disk that are not UTF-8 have lone surrogates: they are read as they were written.
ERRORS = "surrogateescape"
# Names of runs, after a colon the model that is meant; no name on disk has the sign between them.
BETWEEN = "/"
NAMES = re.compile(r"[^\x00-\x1f]{1,6000}")
CHANGES = re.compile(r"(?:\d{1,5}\.[a-z_]{1,40}:\d{1,2}(?:x(?:-1|\d{1,3}))?(?:,|$))*")

# Options of a page's address: the values allowed, the default first; or a pattern, default empty.
OPTIONS: dict[str, dict[str, tuple[str, ...] | re.Pattern[str]]] = {
    "runs": {},
    "run": {"metric": METRICS, "scale": SCALES},
    "block": {"site": NAME},
    "weights": {"unit": NAME, "linear": NAME, "group": PLACE},
    "tokens": {
        "model": MODELS,
        "colour": MEASURES,
        "which": WHICH,
        "text": NAME,
        "above": AMOUNT,
        "window": NUMBER,
        "position": NUMBER,
    },
    "recipe": {"bits": CHANGES},
    "explain": {"shown": NAME, "prompt": NUMBER},
    "compare": {
        "a": NAME,
        "b": NAME,
        "model_a": COMPARED,
        "model_b": COMPARED,
        "measure": METRICS,
        "runs": NAMES,
        "baseline": NAME,
        "axis": SCALES,
    },
    "trend": {"model": NAME, "runs": NAMES},
    "new": {"like": NAME, "kind": KINDS},
    "missing": {},
}


def list_defaults() -> dict[str, str]:
    """Option -> the value that an address leaves out, of those that are a choice among a few."""
    return {
        key: allowed[0]
        for options in OPTIONS.values()
        for key, allowed in options.items()
        if isinstance(allowed, tuple)
    }


@dataclass(frozen=True)
class Page:
    """A page of the dashboard. run: the run's name; block: its number, on the pages of a block."""

    name: str
    run: str = ""
    block: int = 0
    options: Mapping[str, str] = field(default_factory=dict)

    def option(self, key: str) -> str:
        """The option's value: the address's if it is allowed, else the default."""
        allowed = OPTIONS[self.name][key]
        value = self.options.get(key, "")
        if isinstance(allowed, re.Pattern):
            return value if allowed.fullmatch(value) else ""
        return value if value in allowed else allowed[0]

    @property
    def refused(self) -> dict[str, str]:
        """Options of the address whose values the page does not take."""
        return {key: value for key, value in self.options.items() if self.option(key) != value}

    def names(self, key: str) -> list[str]:
        """The option as the names that it is made of, each once."""
        return list(dict.fromkeys(name for name in self.option(key).split(BETWEEN) if name))

    def number(self, key: str) -> int | None:
        """The option as a number, if it is one."""
        value = self.option(key)
        return int(value) if value else None


def read_address(path: str | None, search: str | None) -> Page:
    """The page at an address; `missing` where there is none."""
    given = dict(parse_qsl((search or "").lstrip("?"), errors=ERRORS))
    match [unquote(part, errors=ERRORS) for part in (path or "/").split("/") if part]:
        case []:
            page = Page("runs")
        case ["compare"]:
            page = Page("compare")
        case ["trend"]:
            page = Page("trend")
        case ["new"]:
            page = Page("new")
        case ["run", run]:
            page = Page("run", run)
        case ["run", run, "block", block] if NUMBER.fullmatch(block):
            page = Page("block", run, int(block))
        case ["run", run, "block", block, "weights"] if NUMBER.fullmatch(block):
            page = Page("weights", run, int(block))
        case ["run", run, ("tokens" | "recipe" | "explain") as name]:
            page = Page(name, run)
        case _:
            return Page("missing")
    known = {key: value for key, value in given.items() if key in OPTIONS[page.name]}
    return Page(page.name, page.run, page.block, known)


def link(name: str, run: str = "", block: int | None = None, **options: object) -> str:
    """The address of a page. Options at their default are left out."""
    tails = {"run": "", "block": f"/block/{block}", "weights": f"/block/{block}/weights"}
    tails |= {name: f"/{name}" for name in ("tokens", "recipe", "explain")}
    if name in tails:
        path = f"/run/{quote(run, safe='', errors=ERRORS)}{tails[name]}"
    else:
        path = "/" if name == "runs" else f"/{name}"
    return path + query(name, **options)


def query(name: str, **options: object) -> str:
    """The part of an address from `?` on; empty if every option is at its default."""
    kept = {}
    for key, value in options.items():
        allowed = OPTIONS[name][key]
        default = "" if isinstance(allowed, re.Pattern) else allowed[0]
        if value is not None and str(value) != default:
            kept[key] = str(value)
    return "?" + urlencode(kept, errors=ERRORS) if kept else ""
