"""The damage by block as a drawing in SVG: no script, no request, the colours of its surroundings.

A notebook that is opened elsewhere, mailed or printed shows it as it was.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from awqscope.app.figures.frame import BLUE, ORANGE
from awqscope.mixedprec.words import write_number

WIDTH, HEIGHT = 720, 190
LEFT, RIGHT, TOP, BOTTOM = 64, 8, 22, 34
# Blocks that are numbered, at most.
MOST_TICKS = 16

Row = Mapping[str, Any]


def sketch_blocks(rows: Sequence[Row], label: str) -> str:
    """Bars of each block's isolated KL with its interval, the flagged ones marked. rows: of
    blocks.parquet. label: what it says to those who do not see it."""
    isolated = [row for row in rows if row["view"] == "isolated" and math.isfinite(row["kl"])]
    ends = [row["kl_high"] for row in isolated if math.isfinite(row["kl_high"])]
    top = max([*ends, *(row["kl"] for row in isolated)], default=0.0) or 1.0
    step = (WIDTH - LEFT - RIGHT) / max(1, len(isolated))
    bottom = HEIGHT - BOTTOM

    def height(value: float) -> float:
        share = min(1.0, max(0.0, value / top)) if math.isfinite(value) else 1.0
        return round(bottom - share * (bottom - TOP), 1)

    parts = [_write_axis(top, bottom)]
    every = math.ceil(len(isolated) / MOST_TICKS) or 1
    for number, row in enumerate(isolated):
        parts += _draw_bar(row, LEFT + (number + 0.5) * step, 0.66 * step, height, bottom)
        if row["block"] % every == 0 or row["flagged"]:
            at = f'x="{LEFT + (number + 0.5) * step:.1f}" y="{bottom + 15}"'
            parts.append(f'<text {at} text-anchor="middle">{row["block"]}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 3}" text-anchor="middle">block</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(label)}" style="max-width: {WIDTH}px; width: 100%; height: auto" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="currentColor">'
        f"{''.join(parts)}</svg>"
    )


def _write_axis(top: float, bottom: float) -> str:
    end = f'x="{LEFT - 6}" text-anchor="end"'
    return (
        f'<line x1="{LEFT}" y1="{bottom}" x2="{WIDTH - RIGHT}" y2="{bottom}" '
        'stroke="currentColor" stroke-opacity="0.4"/>'
        f'<text {end} y="{bottom + 4}">0</text>'
        f'<text {end} y="{TOP + 4}">{escape(write_number(top, ".2g"))}</text>'
        f'<text x="0" y="{TOP - 10}">KL of each block alone, nats a token</text>'
    )


def _draw_bar(row: Row, middle: float, width: float, height: Any, bottom: float) -> list[str]:
    y, low, high = height(row["kl"]), height(row["kl_low"]), height(row["kl_high"])
    said = f"block {row['block']}: {write_number(row['kl'])}"
    bar = (
        f'<rect x="{middle - width / 2:.1f}" y="{y}" width="{width:.1f}" '
        f'height="{max(0.0, bottom - y):.1f}" fill="{ORANGE if row["flagged"] else BLUE}">'
        f"<title>{escape(said)}</title></rect>"
    )
    whisker = (
        f'<line x1="{middle:.1f}" y1="{low}" x2="{middle:.1f}" y2="{high}" '
        'stroke="currentColor" stroke-opacity="0.6"/>'
    )
    flag = f'<text x="{middle:.1f}" y="{high - 4:.1f}" text-anchor="middle">▲</text>'
    return [bar, whisker, *([flag] if row["flagged"] else [])]
