"""The texts that a run was measured on: which of them a window is from, by a name that is short and
still tells them apart, every number by text, and on how many windows blocks were measured."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from awqscope.app.words.compared.comparison import name_briefly, name_model
from awqscope.app.words.numbers import Tile, shorten_specs
from awqscope.diagnose.gate.block_texts import BlockTexts, TextDamage
from awqscope.diagnose.gate.findings import LEAST_WINDOWS, Finding, Missing
from awqscope.diagnose.gate.texts import RunNumbers, TextNumbers, find_worst
from awqscope.diagnose.runs.record import MIXED, REFERENCE, AnyRecord
from awqscope.mixedprec.words import (
    NOTHING,
    join_words,
    write_count,
    write_interval,
    write_number,
    write_share,
)

# From how many times narrower an interval is worth a word.
SOME_NARROWER = 1.1
ALL_TEXTS = "all texts"
TEXT_COLUMNS = {
    "text": "Text",
    "tokens": "Tokens",
    "model": "Model",
    "ppl": "PPL",
    "ppl_ratio": "PPL ratio",
    "kl": "KL",
    "kl_p999": "KL, p99.9",
    "top1_agreement": "Same top token",
    "delta_p": "Δp, mean",
    "rms_delta_p": "Δp, RMS",
    "recovered": "Recovered",
}
# How the numbers of a text are written, in a table and beside the headline.
FORMS = {
    "ppl_ratio": ".4f",
    "kl": ".5f",
    "kl_p999": ".3f",
    "top1_agreement": ".1%",
    "delta_p": "+.2%",
    "rms_delta_p": ".2%",
    "recovered": ".1%",
}
BLOCK_COLUMNS = {"block": "Block", "text": "Text", "windows": "Windows", "kl": "KL alone"}
ABOUT_TEXTS = (
    "95% intervals are the gate's; of several texts each lower bound leaves room for the worst "
    "being so by chance. Δp is by how much the probability of the right token changes."
)


@dataclass(frozen=True)
class TextNames:
    """The texts that a run was measured on, in order: where their windows begin, and what they are
    called."""

    firsts: Sequence[int]
    names: Sequence[str]

    def of(self, window: int) -> str:
        """The name of the text that a window is from."""
        before = [
            name for first, name in zip(self.firsts, self.names, strict=True) if first <= window
        ]
        return before[-1] if before else self.names[0]


def name_texts(record: AnyRecord) -> TextNames:
    """The texts of a run. A path goes by its end, as much of it as no other text has."""
    definition = record.ppl_definition
    if not definition.slices:
        return TextNames([0], shorten_specs([definition.text]))
    firsts = [part.first_window for part in definition.slices]
    return TextNames(firsts, shorten_specs([part.text for part in definition.slices]))


def write_sample(record: AnyRecord) -> str:
    """On how many windows blocks were measured, in words; empty where on all."""
    sweep = record.sweep
    if sweep is None or sweep.looks is None:
        return ""
    first, last = sweep.looks[0], sweep.looks[-1]
    count = f"{last:,}" if first == last else f"{first:,} to {last:,}"
    said = f"measured on {count} of {record.ppl_definition.windows:,} windows, drawn at random"
    said += "" if record.spec.sweep_windows == last else ", until every flag was sure"
    if sweep.isolated_error is not None:
        known = write_share(sweep.isolated_error)
        said += f"; what all cost alone, together, is known to ±{known}"
        if sweep.narrowed is not None and sweep.narrowed >= SOME_NARROWER:
            times = write_number(sweep.narrowed, ".1f")
            said += f", {times} times narrower by the uniform KL of every window"
    return said


def bound(found: Finding | Missing | None, name: str) -> tuple[str, str]:
    """A number of a text and its interval, in words; no interval where too few windows bound it."""
    if not isinstance(found, Finding):
        return NOTHING, ""
    form = FORMS[name]
    ends = (found.low, found.high)
    # The p99.9 of few tokens has a lower bound alone.
    finite = all(map(math.isfinite, ends))
    return write_number(found.value, form), write_interval(ends, form) if finite else ""


def write_found(found: Finding | Missing | None, name: str) -> str:
    """A number of a text with its interval."""
    return " ".join(part for part in bound(found, name) if part)


def name_models(record: AnyRecord) -> dict[str, str]:
    """What the models of a run are called in a table: 16-bit, 4-bit (or candidate), mixed."""
    return {REFERENCE: "16-bit", record.quantized: name_briefly(record), MIXED: MIXED}


def text_rows(numbers: RunNumbers, record: AnyRecord) -> list[dict[str, tuple[str, str]]]:
    """Every number by text and model, all texts last: lines of TEXT_COLUMNS, each cell a number
    and its interval. A single text is not told from all."""
    texts = numbers.texts if len(numbers.texts) > 1 else ()
    names = shorten_specs([part.text for part in texts])
    named = [*zip(names, texts, strict=True), (ALL_TEXTS, numbers.whole)]
    return [line for name, part in named for line in _text_lines(name, part, record)]


def _text_lines(
    name: str, part: TextNumbers, record: AnyRecord
) -> Iterator[dict[str, tuple[str, str]]]:
    called = name_models(record)
    for number, (model, ppl) in enumerate(part.ppl.items()):
        first = number == 0
        line = {
            "text": (name if first else "", ""),
            "tokens": (write_count(part.tokens) if first else "", ""),
            "model": (called[model], ""),
            "ppl": (write_number(ppl, ".3f"), ""),
        }
        for key in FORMS:
            found = part.recovered if key == "recovered" else part.find(model, key)
            nothing = model == REFERENCE or (key == "recovered" and model != MIXED)
            line[key] = ("", "") if nothing else bound(found, key)
        yield line


def write_worst_text(numbers: RunNumbers, record: AnyRecord) -> str:
    """Which text is hurt most by what is released, mixed where there is one, and whether that is
    sure; empty for a single text."""
    if len(numbers.texts) < 2 or not numbers.models:
        return ""
    model = MIXED if MIXED in numbers.models else numbers.models[0]
    worst = find_worst(numbers.texts, model)
    if worst is None:
        return ""
    specs = [part.text for part in numbers.texts]
    names = dict(zip(specs, shorten_specs(specs), strict=True))
    found = worst.find(model, "kl")
    others = [
        (part, other)
        for part in numbers.texts
        if part is not worst and (other := part.find(model, "kl")) is not None
    ]
    said = (
        f"Of {len(numbers.texts)} texts {names[worst.text]} is hurt most: KL "
        f"{write_found(found, 'kl')} of {name_model(model, record)}"
    )
    if not others or found is None:
        return f"{said}."
    least, least_kl = min(others, key=lambda each: each[1].value)
    said += f", against {write_found(least_kl, 'kl')} in {names[least.text]}, the least."
    if min(part.windows for part in numbers.texts) < LEAST_WINDOWS:
        return f"{said} A text of fewer than {LEAST_WINDOWS} windows has no interval."
    near = [names[part.text] for part, other in others if other.high >= found.low]
    unsure = f" It is not sure to be worse than {join_words(near, 'or')}: the intervals overlap."
    return said + (unsure if near else "")


def ratio_tiles(numbers: RunNumbers | None, record: AnyRecord) -> list[Tile]:
    """What a headline lacks: the PPL ratio and Δp of the right token, of each model."""
    if numbers is None:
        return []
    called, tiles = name_models(record), []
    titles = {"ppl_ratio": "PPL ratio", "delta_p": "Δp, mean", "rms_delta_p": "Δp, RMS"}
    for name, title in titles.items():
        # The last is what is released; the other stands in the note.
        *before, last = numbers.models or ("",)
        value, interval = bound(numbers.whole.find(last, name), name)
        rest = [
            f"{called[model]} {bound(numbers.whole.find(model, name), name)[0]}" for model in before
        ]
        label = f"{title}, {called.get(last, last)}"
        tiles.append(Tile(label, value, "; ".join(part for part in (interval, *rest) if part)))
    return tiles if numbers.models else []


def block_text_rows(found: BlockTexts) -> list[dict[str, str]]:
    """What flagged blocks cost alone in each text: lines of BLOCK_COLUMNS, the worst first."""
    names = _name_damages(found)
    return [
        {
            "block": str(block),
            "text": names[each.text],
            "windows": str(each.windows),
            "kl": write_number(each.kl, ".4f"),
        }
        for block, damages in found.blocks.items()
        for each in sorted(damages, key=lambda one: -(one.kl or 0.0))
    ]


def _name_damages(found: BlockTexts) -> Mapping[str, str]:
    texts = [each.text for damages in found.blocks.values() for each in damages]
    specs = list(dict.fromkeys(texts))
    return dict(zip(specs, shorten_specs(specs), strict=True))


def write_block_texts(found: BlockTexts) -> str:
    """Which text each flagged block hurts most, and what that is known of; empty where there is
    nothing to say."""
    if not found.blocks:
        return ""
    names = _name_damages(found)
    damages = next(iter(found.blocks.values()))
    kept = [each for each in damages if each.windows]
    count = sum(each.windows for each in kept)
    if not kept:
        return "The run kept no KL of its blocks by token, so that texts cannot be told apart."
    where = join_words([f"{each.windows} in {names[each.text]}" for each in kept])
    said = (
        f"Known of {count} windows alone, those with the largest KL of all that blocks were "
        f"measured on: {where}."
    )
    if len(kept) < 2:
        return f"{said} Of the other texts nothing is known by block."
    worst = [f"{_name_worst(block, each, names)}" for block, each in found.blocks.items()]
    return f"{said} There {join_words(worst)}."


def _name_worst(block: int, damages: Sequence[TextDamage], names: Mapping[str, str]) -> str:
    known = [each for each in damages if each.kl is not None]
    worst = max(known, key=lambda each: each.kl or 0.0)
    return f"block {block} hurts {names[worst.text]} most (KL alone {write_number(worst.kl)})"
