"""What is said of the study of int8 inputs: the same on the terminal and on the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from awqscope.app.words.verdict import write_bounded_kl, write_kl
from awqscope.diagnose.entries.part import Bounded
from awqscope.diagnose.studies.int8_inputs.answer import (
    INT8,
    LLM_INT8,
    METHODS,
    SMOOTHQUANT,
    THRESHOLD,
    Activations,
    BlockDamage,
    Measured,
)
from awqscope.mixedprec.words import (
    Written,
    join_words,
    join_written,
    write_number,
    write_share,
)

NAMES: Mapping[str, str] = {
    INT8: "int8 by token",
    LLM_INT8: "LLM.int8",
    SMOOTHQUANT: "SmoothQuant",
}
# What each does, in a form's list.
MEANINGS: Mapping[str, str] = {
    INT8: "int8 by token: a scale for each token and each output",
    LLM_INT8: f"LLM.int8: channels that reach {THRESHOLD:g} stay at 16 bits",
    SMOOTHQUANT: "SmoothQuant: inputs divided and weights multiplied, α searched",
}
SIGN = "▲"
UNBROKEN = "\N{NO-BREAK SPACE}"
REFUSES = f"{SIGN} refuses"
DECIMALS = 6


def name_weights(answer: Activations) -> str:
    """What the run itself rounds."""
    return f"{answer.bits}-bit weights"


def write_damage(kl: Bounded, refuses: bool = False, mark: str = REFUSES) -> str:
    """A KL with its interval, and a mark where its block refuses what was done to it."""
    return join_written(write_bounded_kl(kl, DECIMALS), mark * refuses)


def name_blocks(blocks: Sequence[int]) -> str:
    """`block 3`, or `blocks 3 and 7`."""
    return f"block{'s' * (len(blocks) > 1)} {join_words(blocks)}"


def write_answer(answer: Activations) -> list[str]:
    """What was found, a sentence or two a method, and last what repairs which block."""
    said = [_write_weights(answer), *(_write_measured(each) for each in answer.methods)]
    return [*said, *_write_repaired(answer)]


def _write_weights(answer: Activations) -> str:
    refusing = [each.block for each in answer.weights if each.refuses]
    named = name_weights(answer)
    if not refusing:
        return f"No block refuses {named}."
    verb = "refuse" if len(refusing) > 1 else "refuses"
    return f"{_begin(name_blocks(refusing))} {verb} {named}."


def _begin(text: str) -> str:
    return text[0].upper() + text[1:]


def _write_measured(found: Measured) -> str:
    """A method's damage in every block, and which refuse it."""
    kl, low, high = found.whole.kl
    name, refusing = NAMES[found.method], found.refusing
    spread = f"{write_kl(low, 5)} to {write_kl(high, 5)}"
    said = f"{name} in every block costs KL {write_kl(kl, 5)} ({spread})"
    if not refusing:
        said += "; no block refuses it."
    elif len(refusing) == 1:
        reason = next(each.reason for each in found.blocks if each.refuses)
        said += f"; block {refusing[0]} refuses it: {reason}."
    else:
        said += f"; {name_blocks(refusing)} refuse it."
    return f"{said}{_write_kept(found)}{_write_alphas(found)}"


def _write_kept(found: Measured) -> str:
    """How many channels llm.int8 keeps where they are most."""
    if not found.kept:
        return ""
    unit = max(found.kept, key=lambda name: found.kept[name] if found.kept else 0.0)
    share = found.kept[unit]
    if share == 0:
        return f" No input reaches {THRESHOLD:g}: nothing stays at 16 bits."
    return f" It keeps {write_share(share)} of the input channels of {unit} at 16 bits, the most."


def _write_alphas(found: Measured) -> str:
    """Which α smoothquant chose."""
    if not found.alphas:
        return ""
    least, most = min(found.alphas.values()), max(found.alphas.values())
    return f" It chose α from {least:g} to {most:g}."


def _write_repaired(answer: Activations) -> list[str]:
    """Which of the blocks that refuse int8 by token another method repairs: none refuses it, which
    is relative to the other blocks, and each costs less than before."""
    plain = answer.find(INT8)
    if plain is None:
        return []
    said = []
    for found in answer.methods:
        before, after = (
            {each.block: each.isolated.kl[0] for each in of.blocks} for of in (plain, found)
        )
        repaired = [
            block
            for block in plain.refusing
            if block not in found.refusing and after[block] < before[block]
        ]
        if found is plain or not repaired:
            continue
        costs = (sum(kl[block] for block in repaired) for kl in (before, after))
        said.append(
            f"{NAMES[found.method]} repairs {name_blocks(repaired)}: KL alone "
            f"{' → '.join(write_kl(cost, 5) for cost in costs)}."
        )
    return said


def write_sample(answer: Activations) -> str:
    """What the numbers were measured on."""
    count = len(answer.windows)
    measured = f"{answer.tokens:,} tokens of {count} window{'s' * (count != 1)}"
    return f"KL of each block alone, nats a token, on {measured}"


def list_columns(answer: Activations) -> dict[str, str]:
    """The columns of a table with a line a block."""
    methods: dict[str, str] = {each.method: NAMES[each.method] for each in answer.methods}
    return {"block": "Block", "weights": name_weights(answer), **methods}


def list_rows(answer: Activations, mark: str = REFUSES) -> list[dict[str, Any]]:
    """KL alone by block, of the run's weights and of every method. `block` is its number; mark:
    what stands behind a number that a block refuses."""
    rows: list[dict[str, Any]] = []
    for number, weights in enumerate(answer.weights):
        row = {"block": weights.block, "weights": write_damage(weights.kl, weights.refuses, mark)}
        for found in answer.methods:
            block = found.blocks[number]
            row[found.method] = write_damage(block.isolated.kl, block.refuses, mark)
        rows.append(row)
    return rows


VIEW_COLUMNS = {
    "block": "Block",
    "verdict": "Verdict",
    "isolated": "KL alone",
    "ppl": "ΔPPL alone",
    "cumulative": "KL up to here",
    "restored": "KL if restored",
}


def view_rows(found: Measured) -> list[dict[str, Any]]:
    """A method's three views by block. `block` is its number."""
    return [
        {
            "block": each.block,
            "verdict": _write_verdict(each),
            "isolated": write_damage(each.isolated.kl),
            "ppl": write_number(each.isolated.delta_ppl[0], "+.4f"),
            "cumulative": write_damage(each.cumulative.kl),
            "restored": write_damage(each.restored.kl),
        }
        for each in found.blocks
    ]


def _write_verdict(block: BlockDamage) -> str:
    """Whether a block refuses what was done to it, and how far it stands out."""
    refuses = REFUSES * block.refuses
    text = f"{refuses} z = {write_number(block.z, '.1f')}".strip()
    return Written(text.replace(" ", UNBROKEN), block.z, words=refuses)


def unit_columns(found: Measured) -> dict[str, str]:
    """The columns of a table with a line a unit; empty where there is nothing of units."""
    if found.kept:
        return {"unit": "Unit", "value": "Input channels at 16 bits"}
    return {"unit": "Unit", "value": "α"} if found.alphas else {}


def list_units(found: Measured) -> list[dict[str, str]]:
    """What a method decided of every unit."""
    if found.kept:
        return [{"unit": u, "value": write_share(s, ".2%")} for u, s in found.kept.items()]
    return [{"unit": u, "value": write_number(a, "g")} for u, a in (found.alphas or {}).items()]


def list_missing(answer: Activations | None) -> list[str]:
    """The methods that are yet to be measured; all where all were."""
    return [m for m in METHODS if answer is None or answer.find(m) is None] or [*METHODS]
