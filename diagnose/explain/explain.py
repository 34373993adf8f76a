"""Why a quantized model continues a prompt differently than the reference, and what repairs it.

Both are decoded greedily. Everything else is read off partly quantized models on the prompt and the
reference's continuation: as long as the likeliest tokens are the reference's, a model's own
continuation is that text, so one pass tells where each of them parts from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from awqscope.diagnose.explain.bench import Bench, judge_variants, read_models
from awqscope.diagnose.explain.cheapest import Cheapest, Outcome, Units, search_cheapest
from awqscope.diagnose.explain.explanation import (
    BlockBlame,
    Continuation,
    Explanation,
    Explanations,
    Repair,
)
from awqscope.diagnose.explain.greedy import decode_held, decode_streamed, find_ends, fits_in_memory
from awqscope.diagnose.explain.prompts import encode_prompts
from awqscope.diagnose.explain.readings import Reading, find_rivals, follow, list_pieces
from awqscope.diagnose.runs.directory import OnProgress
from awqscope.diagnose.trials.finished import OpenedRun, promote
from awqscope.diagnose.trials.variants import Variant
from awqscope.mixedprec.models.served import read_ends
from awqscope.mixedprec.scheme import UnitWidths

# Prompt, by number -> token ids.
Sequences = Mapping[int, tuple[int, ...]]


def _measure_apart(
    bench: Bench, texts: Sequences, wanted: Sequences
) -> tuple[dict[int, list[BlockBlame]], dict[int, dict[str, Outcome]]]:
    """At the end of each text: every block isolated and restored, and every unit promoted alone."""
    opened = bench.opened
    uniform = opened.models["uniform"]
    blocks = range(opened.model.blocks)

    def select(block: int, inside: bool) -> UnitWidths:
        """The uniform model's units inside of a block, or outside of it."""
        return {u: bits for u, bits in uniform.items() if u.startswith(f"{block}.") == inside}

    models = [(select(block, True), False) for block in blocks]
    models += [(select(block, False), True) for block in blocks]
    models += [(promote(opened, [unit]), True) for unit in opened.extra_bytes]
    variants = [Variant(text, bits, stored) for text in texts.values() for bits, stored in models]
    tokens = [wanted[number] for number in texts for _ in models]
    outcomes = judge_variants(bench, variants, tokens)
    blames, singles = {}, {}
    for number in texts:
        alone = [next(outcomes) for _ in blocks]
        restored = [next(outcomes) for _ in blocks]
        blames[number] = [
            BlockBlame(
                block,
                not a.wins,
                a.margin,
                a.probability,
                b.wins,
                b.margin,
                b.probability,
            )
            for block, a, b in zip(blocks, alone, restored, strict=True)
        ]
        singles[number] = {unit: next(outcomes) for unit in opened.extra_bytes}
    return blames, singles


def _find_repairs(
    bench: Bench,
    texts: Sequences,
    wanted: Sequences,
    singles: Mapping[int, Mapping[str, Outcome]],
    margins: Mapping[int, float],
) -> dict[int, Cheapest]:
    """The cheapest set for each text and the tokens wanted of it; all searches share each pass."""
    extra = bench.opened.extra_bytes
    searches = {n: search_cheapest(extra, singles[n], margins[n]) for n in texts}
    answers: dict[int, Mapping[Units, Outcome] | None] = dict.fromkeys(texts)
    found = {}
    while searches:
        asked: dict[int, list[Units]] = {}
        for number, search in list(searches.items()):
            try:
                asked[number] = search.send(answers[number])  # type: ignore[arg-type]
            except StopIteration as end:
                del searches[number]
                if end.value is not None:
                    found[number] = end.value
        pairs = [(number, units) for number, sets in asked.items() for units in sets]
        variants = [Variant(texts[n], promote(bench.opened, units), True) for n, units in pairs]
        outcomes = judge_variants(bench, variants, [wanted[number] for number, _ in pairs])
        answers = {number: {units: next(outcomes) for units in asked[number]} for number in asked}
    return found


def explain(
    opened: OpenedRun,
    prompts: Sequence[str],
    tokens: int,
    max_memory: int,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> Explanations:
    """Explain each of `prompts` over `tokens` further tokens. max_memory: bytes, for the model
    while decoding, half of it for the streams of the measurements. InputError for a prompt that
    cannot be used."""
    model, tokenizer = opened.model, opened.tokenizer
    encoded = encode_prompts(list(prompts), tokenizer, model, tokens)
    held = fits_in_memory(model, max_memory)
    decode = decode_held if held else decode_streamed
    total = 2 * tokens * len(encoded) if held else tokens
    decoded = decode(
        model,
        encoded,
        {name: opened.models[name] for name in ("reference", "uniform")},
        opened.run.searches,
        tokens,
        lambda done: on_progress("decode", done, total),
    )
    on_progress("decode", total, total)
    bench = Bench(opened, read_ends(model), max_memory // 2, on_progress)
    numbers = range(len(encoded))
    whole = {n: [*encoded[n], *decoded["reference"][n]] for n in numbers}
    readings = read_models(bench, whole, encoded, dict.fromkeys(numbers, opened.models))
    found_rivals = {
        n: find_rivals(readings[n], decoded["reference"][n], decoded["uniform"][n], tokenizer)
        for n in numbers
    }
    apart = [n for n, (rivals, parts) in found_rivals.items() if parts and not rivals.tied]
    texts = {n: tuple(whole[n][: len(encoded[n]) + found_rivals[n][0].position]) for n in apart}
    wanted = {n: tuple(decoded["reference"][n][: found_rivals[n][0].position + 1]) for n in apart}
    blames, singles = _measure_apart(bench, texts, wanted)
    margins = {n: found_rivals[n][0].margin_uniform for n in apart}
    repairs = _find_repairs(bench, texts, wanted, singles, margins)
    again = {
        n: {"reference": opened.models["reference"], "repaired": promote(opened, found.units)}
        for n, found in repairs.items()
    }
    for n, found in read_models(bench, {n: whole[n] for n in again}, encoded, again).items():
        readings[n]["repaired"] = found["repaired"]
    ends = find_ends(model)

    def write_out(ids: list[int]) -> Continuation:
        pieces = tuple(tokenizer.decode([token]) for token in ids)
        return Continuation(tokenizer.decode(ids), tuple(ids), pieces, ids[-1] in ends)

    def describe(n: int) -> Explanation:
        rivals, parts = found_rivals[n]
        position = rivals.position if parts else None
        found = readings[n]
        return Explanation(
            prompt=prompts[n],
            prompt_tokens=len(encoded[n]),
            reference=write_out(decoded["reference"][n]),
            uniform=write_out(decoded["uniform"][n]),
            common=len(decoded["reference"][n]) if position is None else position,
            parting=rivals if parts else None,
            closest=None if parts else rivals,
            blocks=tuple(blames.get(n, ())),
            repair=(
                _describe_repair(opened, repairs[n], singles[n], found["repaired"], position)
                if n in repairs
                else None
            ),
            mixed=follow(found["mixed"], position) if "mixed" in found else None,
            pieces=list_pieces(encoded[n], decoded["reference"][n], found, tokenizer),
        )

    return Explanations(
        run=opened.run.path.resolve().name,
        model=str(model.path),
        bits=opened.spec.bits,
        rescue_bits=opened.spec.rescue_bits,
        tokens=tokens,
        units=len(opened.extra_bytes),
        recipe=opened.recipe.kind if opened.recipe else None,
        decoding="held" if held else "streamed",
        prompts=tuple(describe(n) for n in numbers),
    )


def _describe_repair(
    opened: OpenedRun,
    found: Cheapest,
    singles: Mapping[str, Outcome],
    reading: Reading,
    position: int | None,
) -> Repair:
    """A repair, with the units each of which does it alone, the cheapest first."""
    alone = [unit for unit, outcome in singles.items() if outcome.repaired]
    alone.sort(key=lambda unit: (opened.extra_bytes[unit], -singles[unit].margin))
    return Repair(**asdict(found), single=tuple(alone), followed=follow(reading, position))
