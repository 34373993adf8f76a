"""What a report says of the worst tokens, each in its text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from awqscope.app.report.contents import Findings, Passage
from awqscope.app.report.pieces import Row
from awqscope.app.words.compared.comparison import name_briefly
from awqscope.app.words.numbers import show_line_ends, show_token
from awqscope.app.words.run import shade, token_summary, token_value
from awqscope.mixedprec.words import write_number


@dataclass(frozen=True)
class ShownToken:
    """A token of a passage. look: its class; title: its numbers."""

    text: str
    look: str
    title: str


@dataclass(frozen=True)
class ShownPassage:
    """A spoiled token in its text: before, itself, after; then its numbers, what each model
    expected (token, share, whether it is what came), and which block is to blame, if known."""

    where: str
    token: str
    before: Sequence[ShownToken]
    worst: ShownToken
    after: Sequence[ShownToken]
    numbers: str
    expected: Mapping[str, Sequence[tuple[str, str, bool]]]
    blame: str


def show_passages(found: Findings) -> list[ShownPassage]:
    """The worst tokens in their text, shaded on one scale."""
    largest = max((p.rows[p.at]["kl_uniform"] for p in found.passages), default=0.0)
    uniform = name_briefly(found.record)
    return [_show_passage(passage, largest, uniform) for passage in found.passages]


def _show_passage(passage: Passage, largest: float, uniform: str) -> ShownPassage:
    tokens = [_shown(row, largest) for row in passage.rows]
    row = passage.rows[passage.at]
    expected = {
        name: [
            (show_token(top["text"]), f"{top['probability']:.0%}", top["token"] == row["token"])
            for top in row[key]
        ]
        for key, name in (("top_reference", "16-bit"), ("top_uniform", uniform))
        if row.get(key)
    }
    mixed = "" if row["kl_mixed"] is None else f" (mixed {write_number(row['kl_mixed'], '.4f')})"
    return ShownPassage(
        where=f"Window {row['window']}, token {row['position']}",
        token=show_token(row["text"]),
        before=tokens[: passage.at],
        worst=tokens[passage.at],
        after=tokens[passage.at + 1 :],
        numbers=(
            f"KL {write_number(row['kl_uniform'], '.4f')}{mixed}, "
            f"NLL {write_number(row['nll_reference'], '.3f')} → "
            f"{write_number(row['nll_uniform'], '.3f')}"
        ),
        expected=expected,
        blame=token_summary(row) if row["block_kl"] else "",
    )


def _shown(row: Row, largest: float) -> ShownToken:
    value = token_value(row, "kl")
    title = "context only" if value is None else f"KL {write_number(value, '.4f')}"
    return ShownToken(show_line_ends(row["text"]), shade(value, largest), title)
