"""The drawing in a notebook: as long as its numbers say, whatever they are."""

import math
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest

from awqscope.app.notebook.sketch import BOTTOM, HEIGHT, TOP, sketch_blocks

SVG = "{http://www.w3.org/2000/svg}"


def make_rows(values: Sequence[float], flagged: int = -1) -> list[dict[str, object]]:
    return [
        {
            "block": block,
            "view": "isolated",
            "kl": value,
            "kl_low": 0.9 * value,
            "kl_high": 1.1 * value,
            "flagged": block == flagged,
        }
        for block, value in enumerate(values)
    ]


def draw(rows: Sequence[dict[str, object]]) -> ElementTree.Element:
    return ElementTree.fromstring(sketch_blocks(rows, 'blocks, "all" <of them> & more'))


def test_bars_are_as_long_as_their_kl() -> None:
    values = [0.5, 0.1, 0.25]
    found = draw(make_rows(values, flagged=0))
    assert found.attrib["aria-label"] == 'blocks, "all" <of them> & more'
    room = HEIGHT - BOTTOM - TOP
    heights = [float(bar.attrib["height"]) for bar in found.iter(f"{SVG}rect")]
    assert heights == pytest.approx([room * value / (1.1 * 0.5) for value in values], abs=0.06)
    texts = [text.text for text in found.iter(f"{SVG}text")]
    assert texts.count("▲") == 1 and "0.55" in texts


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [math.nan, 1.0], [1e-9], [0.1] * 80])
def test_any_numbers_are_drawn(values: list[float]) -> None:
    found = draw(make_rows(values))
    for bar in found.iter(f"{SVG}rect"):
        assert 0 <= float(bar.attrib["height"]) <= HEIGHT and float(bar.attrib["width"]) > 0
    numbers = [text.text for text in found.iter(f"{SVG}text")]
    assert len(numbers) <= 4 + 17 and "nan" not in "".join(map(str, numbers))
