"""A block opens where its damage is, and its places are in the order of the model."""

from typing import Any

import pytest

from awqscope.app.words.sites import choose_site, name_site, order_kinds
from tests.help.runs import parse_record, read_sample

FAMILY = ["qkv", "o", "gate_up", "down"]
SAMPLE = read_sample()
RECORD = parse_record({**SAMPLE, "source": {**SAMPLE["source"], "units": FAMILY}})


def test_order_is_the_familys() -> None:
    by_letter = sorted([*FAMILY, "output"])
    assert order_kinds(RECORD, by_letter) == [*FAMILY, "output"]
    assert order_kinds(RECORD, ["output", "down", "qkv", "down"]) == ["qkv", "down", "output"]
    assert order_kinds(RECORD, ["other", "output", "o"]) == ["o", "output", "other"]


def activation(site: str, error: float | None) -> dict[str, Any]:
    return {"site": site, "model": "uniform", "relative_mse": error}


@pytest.mark.parametrize(
    ("worst", "errors", "site"),
    [
        (["o", "qkv"], {"down": 9.0}, "o"),
        (["experts", "down"], {}, "down"),
        ([], {"qkv": 0.1, "down": 0.3, "output": None}, "down"),
        ([], {"qkv": 0.1, "output": 0.3}, "output"),
        ([], {"qkv": None}, "qkv"),
        ([], {}, "qkv"),
        (["elsewhere"], {"gate_up": 0.1}, "gate_up"),
    ],
)
def test_the_guilty_site_is_first(
    worst: list[str], errors: dict[str, float | None], site: str
) -> None:
    rows = [{"kind": kind} for kind in worst]
    found = [activation(name, error) for name, error in errors.items()]
    assert choose_site([*FAMILY, "output"], rows, found) == site


def test_sites_are_named_by_what_is_looked_at() -> None:
    assert [name_site(site) for site in ("o", "output")] == ["into o", "output"]
