"""What an explanation says, in words: the same on the terminal and on the page.

`asked` is the whole of what `awqscope explain --json` prints, `entry` one of its prompts.
"""

from collections.abc import Mapping
from typing import Any

from awqscope.mixedprec.words import NOTHING, join_words, write_size

Entry = Mapping[str, Any]
LISTED = 3
# The margin, in nats, up to which the reference was hardly decided itself.
CLOSE = 0.25
SIGNS = {"\n": "⏎", "\t": "⇥", "\r": "␍", " ": " "}


def show_piece(text: str) -> str:
    """A token's text on one line: line ends are seen, what cannot be printed is "�"."""
    return "".join(SIGNS.get(c, c if c.isprintable() else "�") for c in text) or "∅"


def quote(text: str) -> str:
    """A token in a sentence."""
    return f"“{show_piece(text)}”"


def shorten(text: str, length: int) -> str:
    """A text's beginning, on one line."""
    line = show_piece(text)
    return line if len(line) <= length else line[: length - 1] + "…"


def count_tokens(count: int) -> str:
    return f"{count} token" + "s" * (count != 1)


def name_units(repair: Entry) -> str:
    """A repair's units in a table's cell."""
    units = repair["units"]
    return ", ".join(units) if len(units) <= LISTED else f"{len(units)} units"


def write_units(repair: Entry) -> str:
    """A repair's units in a table's cell, with the bytes that it adds."""
    return f"{name_units(repair)} ({write_size(repair['extra_bytes'], signed=True)})"


def write_parting(entry: Entry, asked: Entry) -> str:
    """Where the continuations part, or how close they came to it."""
    low = asked["bits"]
    found = entry["parting"]
    if found is None:
        return f"Both models go on alike for {_write_length(entry)}. {_write_closest(entry, asked)}"
    after = f"after {count_tokens(found['position'])}" if found["position"] else "at once"
    mine, other = found["reference"], found["other"]
    if found["tied"]:
        return (
            f"They part {after}, over a tie: {quote(mine['text'])} and {quote(other['text'])} are "
            "equally likely to within rounding. There is nothing to repair."
        )
    return (
        f"They part {after}: the 16-bit model says {quote(mine['text'])} "
        f"({mine['probability_reference']:.1%}), the {low}-bit model {quote(other['text'])} "
        f"({other['probability_uniform']:.1%}).{_write_close(found)}"
    )


def _write_close(contest: Entry) -> str:
    """That chance may have decided, where the 16-bit model itself was hardly decided."""
    margin = contest["margin_reference"]
    if margin > CLOSE:
        return ""
    return f" The 16-bit model prefers its own by a margin of only {margin:.2f} nats: a close call."


def _write_length(entry: Entry) -> str:
    count = count_tokens(len(entry["reference"]["tokens"]))
    return f"{count}, to the end of the text" if entry["reference"]["ended"] else f"all {count}"


def _write_closest(entry: Entry, asked: Entry) -> str:
    closest = entry["closest"]
    mine, other = closest["reference"], closest["other"]
    after = count_tokens(closest["position"])
    return (
        f"It was closest after {after}: by the {asked['bits']}-bit model {quote(mine['text'])} "
        f"({mine['probability_uniform']:.1%}) stays before {quote(other['text'])} "
        f"({other['probability_uniform']:.1%})."
    )


def guilty_blocks(entry: Entry) -> list[int]:
    """Blocks that break the token alone and, restored alone, bring it back; else those that do one
    of the two, restoring first. The worst first."""
    breaking, restoring = _list_breaking(entry), _list_restoring(entry)
    return [block for block in restoring if block in breaking] or restoring or breaking


def write_blocks(entry: Entry) -> str:
    """The guilty blocks in a table's cell."""
    blocks = guilty_blocks(entry)
    return ", ".join(map(str, blocks[:LISTED])) + "…" * (len(blocks) > LISTED) or NOTHING


def _list_breaking(entry: Entry) -> list[int]:
    """Blocks that break the token alone, the worst first."""
    found = sorted(entry["blocks"], key=lambda row: row["isolated_margin"])
    return [row["block"] for row in found if row["breaks"]]


def _list_restoring(entry: Entry) -> list[int]:
    """Blocks that restored alone bring the token back, the surest first."""
    found = sorted(entry["blocks"], key=lambda row: -row["restored_margin"])
    return [row["block"] for row in found if row["restores"]]


def write_blame(entry: Entry) -> str:
    """Which block breaks the token; empty where there is nothing to blame."""
    blocks = entry["blocks"]
    if not blocks:
        return ""
    breaking, restoring = _list_breaking(entry), _list_restoring(entry)
    both = [block for block in restoring if block in breaking]
    breaking = [block for block in breaking if block not in both]
    restoring = [block for block in restoring if block not in both]
    said = []
    if len(both) == 1:
        said.append(
            f"Block {both[0]} is to blame: quantized alone it breaks this token, restored alone "
            "it brings it back."
        )
    elif both:
        said.append(
            f"Blocks {join_words(both)} are to blame: each breaks this token when quantized alone "
            "and brings it back when restored alone."
        )
    if restoring:
        also = "also " * bool(both)
        surest = f", block {restoring[0]} the most surely" * (len(restoring) > 1 and not both)
        named = join_words(restoring, "or")
        said.append(f"Restoring block {named} alone {also}brings it back{surest}.")
    elif not both:
        closest = max(blocks, key=lambda row: row["restored_margin"])["block"]
        said.append(
            f"No block restored alone brings the token back; block {closest} comes closest."
        )
    if breaking:
        also = "also " * bool(both)
        verb = "breaks" if len(breaking) == 1 else "each break"
        noun = "Block" if len(breaking) == 1 else "Blocks"
        said.append(f"{noun} {join_words(breaking)} {also}{verb} it when quantized alone.")
    elif not both:
        said.append("No block quantized alone breaks it.")
    return " ".join(said)


def write_repair(entry: Entry, asked: Entry) -> str:
    """The cheapest repair, how sure it is the cheapest, and how far it carries."""
    parting, repair = entry["parting"], entry["repair"]
    if parting is None or parting["tied"]:
        return ""
    rescue = asked["rescue_bits"]
    if repair is None:
        return (
            f"Nothing that was tried brings it back, not even all {asked['units']} units at "
            f"{rescue} bits."
        )
    units = repair["units"]
    noun, verb = ("Unit", "brings") if len(units) == 1 else ("Units", "bring")
    how = (
        "no cheaper set does"
        if repair["proved"]
        else "none of them can be left out; a cheaper set may exist"
    )
    said = (
        f"{noun} {join_words(units)} at {rescue} bits "
        f"({write_size(repair['extra_bytes'], signed=True)}) {verb} it back; {how}."
    )
    others = len([unit for unit in repair["single"] if unit not in units])
    if others:
        whose = "unit" if others == 1 else "units"
        said += f" {others} other {whose} of {asked['units']} would do it alone."
    return f"{said} {_write_followed(repair['followed'])}"


def _write_followed(followed: Mapping[str, Any]) -> str:
    """How far a repaired model follows the reference."""
    if followed["parts_at"] is None:
        return "The continuation then is the 16-bit model's to its end."
    return f"The continuation parts again after {count_tokens(followed['parts_at'])}."


def write_mixed(entry: Entry, asked: Entry) -> str:
    """What the run's own recipe makes of the prompt."""
    mixed = entry["mixed"]
    if mixed is None:
        return "The run has no recipe yet."
    if asked["recipe"] == "uniform":
        return "The run's recipe promotes nothing."
    if mixed["parts_at"] is None:
        whole = count_tokens(len(entry["reference"]["tokens"]))
        if entry["parting"] is None:
            return "The run's recipe goes on alike too."
        return f"The run's recipe repairs this prompt: all {whole} are the 16-bit model's."
    after = f"after {count_tokens(mixed['parts_at'])}" if mixed["parts_at"] else "at once"
    if entry["parting"] is None:
        return f"The run's recipe parts {after}."
    if mixed["repairs"]:
        return f"The run's recipe repairs this token; it parts later, {after}."
    return f"The run's recipe does not repair it: it parts {after}."


def mixed_mark(entry: Entry) -> str:
    """What the run's recipe makes of the prompt, in a word."""
    mixed = entry["mixed"]
    if mixed is None:
        return NOTHING
    if mixed["parts_at"] is None:
        return "whole"
    if mixed["repairs"] is None:
        return "parts"
    return "token" if mixed["repairs"] else "no"
