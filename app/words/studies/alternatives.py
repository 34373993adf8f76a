"""What is said of the alternatives to a run's uniform model, wherever they are shown."""

from collections.abc import Sequence

from awqscope.app.words.verdict import write_bounded_kl, write_kl
from awqscope.diagnose.entries.source import write_quantized_before
from awqscope.diagnose.runs.record import MIXED, UNIFORM
from awqscope.diagnose.studies.alternatives.answer import RESCUE, Alternative, Alternatives
from awqscope.mixedprec.words import (
    NOTHING,
    join_words,
    write_bounded,
    write_duration,
    write_number,
    write_share,
    write_size,
)

TITLE = "Alternatives"
SUMMARY = (
    "The same model quantized in other ways and measured on the same tokens: other groups and "
    "widths, rounding to nearest, NF4, GGUF types, and checkpoints of other tools."
)
COLUMNS = {
    "title": "Weights",
    "bits": "Bits a weight",
    "size": "All weights",
    "kl": "KL [95%]",
    "over": "KL over uniform [95%]",
    "ppl": "PPL",
    "delta": "PPL over uniform [95%]",
    "top": "Same top token",
    "took": "Made in",
}
# The run's own models, by what else is said of them.
OWN = {UNIFORM: "uniform", MIXED: "", RESCUE: "rescue width"}
ALONE = "activations are quantized too when it is served; its weights alone were measured"
# Fewer bits than this do not give weights back that were never rounded to them. What does costs
# less than this share of the KL of others, and keeps this share of top tokens: a flat model has
# little KL at any bits, but loses top tokens.
LOSSLESS_BITS, LOSSLESS_SHARE, LOSSLESS_AGREEMENT = 6, 1e-3, 0.999
FAVOURED = "what is measured is kind to that grid and those near it"
Rows = list[dict[str, str]]


def name_alternative(row: Alternative) -> str:
    """What a row is called, with its place in the run if it has one."""
    said = OWN.get(row.name)
    return f"{row.title} ({said})" if said else row.title


def alternative_rows(found: Alternatives) -> Rows:
    """A row an alternative, under COLUMNS, with its `name`; the run's own are marked `chosen`."""
    return [
        {
            "name": row.name,
            "title": name_alternative(row),
            "bits": write_number(row.bits_per_weight, ".2f"),
            "size": write_size(row.bytes),
            "kl": write_bounded_kl(row.kl, 5),
            "over": NOTHING if row.name == UNIFORM else _write_over(row, "kl_over_uniform", ".4f"),
            "ppl": write_number(row.ppl, ".3f"),
            "delta": NOTHING
            if row.name == UNIFORM
            else _write_over(row, "ppl_over_uniform", ".3f"),
            "top": write_share(row.agreement[0]),
            "took": NOTHING if row.seconds is None else write_duration(row.seconds),
            "class": "chosen" if row.name in OWN else "",
        }
        for row in found.rows
    ]


def _write_over(row: Alternative, entry: str, form: str) -> str:
    value, low, high = getattr(row, entry)
    return write_bounded(value, (low, high), f"+{form}")


def write_finding(found: Alternatives) -> list[str]:
    """What the table comes to, in sentences: how the run's uniform model stands to what takes no
    more bits than it, and to what takes more."""
    uniform = found.find(UNIFORM)
    assert uniform is not None
    bits = uniform.bits_per_weight
    others = [row for row in found.rows if row.name != UNIFORM]
    smaller = [row for row in others if row.bits_per_weight <= bits]
    larger = [row for row in others if row.bits_per_weight > bits]
    beaten = [row for row in smaller if row.standing < 0]
    sentences = [
        f"The run's uniform model costs a KL of {write_kl(uniform.kl[0], 5)} at "
        f"{write_number(bits, '.2f')} bits a weight."
    ]
    if beaten:
        sentences.append(f"Surely better at no more bits: {_list(beaten)}.")
    elif smaller:
        sentences.append("Nothing that was measured is surely better at no more bits.")
    worse = [row for row in larger if row.standing > 0]
    if worse:
        sentences.append(f"Surely worse with more bits: {_list(worse)}.")
    paid = [row for row in larger if row.standing < 0]
    if paid:
        best = min(paid, key=lambda row: _price(row, uniform))
        sentences.append(
            f"Of those surely better with more bits, {name_alternative(best)} gives back the most "
            f"for each bit: {write_share(1 - best.kl[0] / uniform.kl[0])} of the KL for "
            f"{write_number(best.bits_per_weight - bits, '+.2f')} bits a weight."
        )
    open_ = [row for row in others if row.standing == 0]
    if open_:
        sentences.append(f"Not told apart from it on this text: {_list(open_)}.")
    return sentences


def _price(row: Alternative, uniform: Alternative) -> float:
    """Bits a weight that a nat given back costs."""
    return (row.bits_per_weight - uniform.bits_per_weight) / (uniform.kl[0] - row.kl[0])


def _list(rows: Sequence[Alternative]) -> str:
    """The rows by name."""
    return join_words([name_alternative(row) for row in rows])


def write_how(found: Alternatives) -> str:
    """What the numbers are of, in a line."""
    return (
        f"Measured on {found.windows:,} windows of {found.seq_len:,} tokens of {found.text}; the "
        f"16-bit model has a perplexity of {write_number(found.reference_ppl, '.3f')} and takes "
        f"{write_size(found.reference_bytes)}. Differences are paired by token."
    )


def list_notes(found: Alternatives) -> list[str]:
    """What else has to be known: that the reference was quantized before, where a checkpoint
    differs besides, and what was not measured."""
    before = found.quantized_before
    few = [row for row in found.rows if row.bits_per_weight < LOSSLESS_BITS]
    most = max(row.kl[0] for row in few) if few else 0.0
    notes = [] if before is None else [f"{write_quantized_before(before)}; {FAVOURED}"]
    notes += [
        f"{name_alternative(row)} gives the reference's weights back: they were on its grid "
        f"before, so that {FAVOURED}"
        for row in few
        if row.kl[0] < LOSSLESS_SHARE * most and row.agreement[0] >= LOSSLESS_AGREEMENT
    ]
    notes += [
        f"{name_alternative(row)}: its {join_words(row.places)} differ too"
        for row in found.rows
        if row.places
    ]
    notes += [f"{name_alternative(row)}: its {ALONE}" for row in found.rows if row.weights_alone]
    return notes + [f"{name} was not measured: {why}" for name, why in found.left_out.items()]


def block_columns(found: Alternatives) -> dict[str, str]:
    """The columns of a table of blocks: an alternative each; empty where none was measured so."""
    rows = [row for row in found.rows if row.blocks is not None]
    return {"block": "Block"} | {row.name: name_alternative(row) for row in rows} if rows else {}


def block_rows(found: Alternatives) -> Rows:
    """A row a block: its KL alone under each alternative, with the interval."""
    measured = {row.name: row.blocks for row in found.rows if row.blocks is not None}
    count = max((len(blocks) for blocks in measured.values()), default=0)
    return [
        {"block": str(block)}
        | {name: write_bounded_kl(blocks[block], 5) for name, blocks in measured.items()}
        for block in range(count)
    ]
