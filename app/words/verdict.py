"""What a run found, in a few sentences: the same on the terminal, on the page and in reports."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from awqscope.app.words.compared.comparison import name_candidate, name_kind, write_places
from awqscope.app.words.noise import find_floor
from awqscope.app.words.numbers import begin_sentence
from awqscope.diagnose.entries.headline import Headline
from awqscope.diagnose.entries.served_type import (
    UNLIKE,
    MeasuredType,
    ServedType,
    describe_type,
    write_measured_type,
)
from awqscope.diagnose.entries.source import write_quantized_before
from awqscope.diagnose.entries.stages import Fault
from awqscope.diagnose.runs.record import AnyRecord, Comparison, Record
from awqscope.diagnose.statistics.spikes import is_noise
from awqscope.mixedprec.models.dtypes import LARGEST, write_type
from awqscope.mixedprec.words import Written, write_number, write_share

# A type whose largest number is this many times the largest activation has room enough.
FAR = 1e6
# Up to this many flagged blocks are named in a list; more are counted.
FEW_FLAGGED = 3
# Of fewer blocks none can be told to stand out.
LEAST_BLOCKS = 4
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")
# How many places a change of the likeliest token is counted in.
PLACES = (100, 1000)
# Earlier versions did not always say why a run failed.
UNKNOWN_FAULT = Fault(message="no reason was recorded")


def name_subject(record: AnyRecord) -> str:
    """What a run is of: the model, or a comparison's candidate and its model."""
    model = shorten_model(record.model)
    if isinstance(record, Comparison):
        return f"{name_candidate(record)} against {model}"
    return model


def shorten_model(model: str) -> str:
    """What a model is called in a title: a hub id as it is, a directory by its last part."""
    if HUB_ID.fullmatch(model):
        return model
    parts = [part for part in model.split("/") if part not in ("", ".", "..")]
    return parts[-1] if parts else model


def write_subject(record: AnyRecord) -> str:
    """What a run is of, and what it was measured on, in a line."""
    source, definition = record.source, record.ppl_definition
    return (
        f"{name_subject(record)}: {source.architecture}, {source.blocks} blocks, "
        f"{_write_millions(source.parameters)} parameters; measured on "
        f"{definition.scored_tokens:,} tokens of {definition.text}"
    )


def _write_millions(count: int) -> str:
    """A number of parameters to three digits: `6.56 million`."""
    size, name = (1e9, "billion") if count >= 1e9 else (1e6, "million")
    return f"{count / size:.3g} {name}" if count >= 1e6 else f"{count:,}"


def write_verdict(record: AnyRecord, promoted: Sequence[str]) -> str:
    """The run in a few sentences that need no other line to be understood. promoted: units that
    its recipe gives the rescue width."""
    if record.state == "failed":
        error = record.error or UNKNOWN_FAULT
        remedy = f" Remedy: {error.remedy}." if error.remedy else ""
        return f"The run stopped: {error.message}.{remedy}"
    at_work = ("running", "stopped")
    stage = next((name for name, s in record.stages.items() if s.state in at_work), "start")
    stopped = record.state == "stopped"
    before = f"The run was stopped before its end ({stage}); " if stopped else ""
    if record.headline is None:
        before = before or f"The run is under way ({stage}); "
        return f"{before}nothing is measured yet."
    if stopped:
        before += "this is what it had measured. "
    found = (
        _write_of_candidate(record)
        if isinstance(record, Comparison)
        else _write_of_run(record, record.headline, promoted)
    )
    how = record.source.quantized_before
    lossy = f" {begin_sentence(write_quantized_before(how))}." if how else ""
    return f"{before}{_write_cost(record)} {write_changed(record)} {found}{lossy}"


def _write_cost(record: AnyRecord) -> str:
    """What the quantized model costs, in a sentence."""
    ppl, kl = record.measured.ppl, record.measured.kl.quantized
    points = f"{write_number(ppl.quantized - ppl.reference, '+.3f')} perplexity"
    if isinstance(record, Comparison):
        cost = f"{name_candidate(record)} costs {points} against its reference "
    else:
        cost = f"{name_kind(record)} costs this model {points} "
    return (
        f"{cost}({ppl.reference:.3f} → {ppl.quantized:.3f}) and a KL of "
        f"{write_kl(kl, 4)} nats a token."
    )


def write_changed(record: AnyRecord) -> str:
    """How often the likeliest next token is another than the reference's, in the quantized model
    and in mixed: what a KL comes to, in places that one can count."""
    top = record.measured.top1_agreement
    changed = [1 - share for share in (top.quantized, top.mixed) if share is not None]
    # Of a hundred places where that says something of both models, else of a thousand.
    of = next((of for of in PLACES if min(changed) * of >= 0.5), PLACES[-1])
    first, *rest = (_count_places(share, of) for share in changed)
    now = f"; now in {rest[0]}" if rest else ""
    return f"The likeliest token changed in {first} of {of:,} places{now}."


def _count_places(share: float, of: int) -> str:
    """A share as a number of places."""
    if share <= 0:
        return "none"
    return f"{share * of:.0f}" if share * of >= 0.5 else "fewer than 1"


def _write_spread(record: AnyRecord, subject: str) -> str:
    """That no block is to be named, and why; empty where one is. subject: what changes the
    model."""
    if record.measured.kl.quantized <= 0:
        return f"{subject} changes nothing that was measured."
    if is_noise(record.measured.kl.quantized, find_floor(record)):
        return "That is below the noise floor: it may be rounding alone."
    if record.measured.flagged:
        return ""
    if record.source.blocks < LEAST_BLOCKS:
        return "With fewer than four blocks none can be told to stand out; see the table."
    return "No block stands out: the damage is spread, and there is no spike to repair."


def _write_of_candidate(record: Comparison) -> str:
    """What was found of a candidate: its blocks, its type, and what differs outside the blocks."""
    found = _write_spread(record, "It") or f"{_name_flagged(record)}."
    of_type, outside = write_run_type(record), write_places(record.places)
    return " ".join([found, *([f"{of_type}."] if of_type else []), *([outside] if outside else [])])


def _write_of_run(record: Record, headline: Headline, promoted: Sequence[str]) -> str:
    """What was found of a run: its blocks, what repairs them, and whether that was proved."""
    if record.spec.budget and promoted:
        found = _write_for_budget(record, headline, promoted)
    else:
        found = _write_spread(record, "Quantizing") or _write_repair(record, headline, promoted)
    proved, reasons = headline.proved, headline.reasons
    tail = "" if proved is None else f" {_write_passed(proved, reasons, 'proof.json')}"
    of_type = write_run_type(record)
    # A proof that failed by the type has said so.
    if of_type and set(reasons) <= {UNLIKE}:
        tail += f" {of_type}."
    return f"{found}{tail}"


def _write_repair(record: Record, headline: Headline, promoted: Sequence[str]) -> str:
    """Which blocks stand out, and what their repair gives back or should."""
    stand = _name_flagged(record)
    if not promoted:
        return f"{stand}. The repair is not chosen yet."
    named = f"{_name_units(promoted)} at {record.spec.rescue_bits} bits"
    return f"{stand}. {_write_given_back(record, headline, named, len(promoted) == 1)}"


def _write_for_budget(record: Record, headline: Headline, promoted: Sequence[str]) -> str:
    """Which blocks stand out, if any do, and what the recipe of a budget gives back or should."""
    stand = _write_spread(record, "Quantizing") or f"{_name_flagged(record)}."
    count = f"{len(promoted)} unit{'s' * (len(promoted) != 1)} at {record.spec.rescue_bits} bits"
    named = f"{count}, chosen for {write_budget(record.spec.budget)},"
    return f"{stand} {_write_given_back(record, headline, named, len(promoted) == 1)}"


def write_budget(budget: Mapping[str, float]) -> str:
    """What a recipe was chosen for, in words."""
    bits, share = budget.get("target_bits"), budget.get("min_recovery")
    if bits is not None:
        return f"{write_number(bits)} bits a weight"
    return f"a recovery of {write_share(share, '.0%')}"


def _write_given_back(record: Record, headline: Headline, named: str, is_one: bool) -> str:
    """What promoted units give back or should, for how much. named: the units, as the sentence
    begins."""
    if headline.recovered is None:
        predicted, skipped = headline.predicted_recovered, record.find_skipped("requantize")
        found = named.removesuffix(",") + (
            "."
            if predicted is None
            else f" should give back {predicted:.1%} of the lost KL (a prediction)."
        )
        return found if skipped is None else f"{found} No checkpoint was written: {skipped}."
    low, high = headline.recovered_interval or (math.nan, math.nan)
    size = (headline.bytes.mixed or 0) / headline.bytes.uniform - 1
    return (
        f"{named} {'gives' if is_one else 'give'} back {headline.recovered:.1%} of the lost KL "
        f"({low:.1%} to {high:.1%}) for {write_number(size, '+.1%')} in size."
    )


def write_brief(state: str, record: AnyRecord) -> str:
    """What a run found in a few words, for lists."""
    headline = record.headline
    if state == "failed":
        return record.error.message if record.error is not None else "failed"
    if headline is None:
        return "nothing measured yet"
    if isinstance(headline, Headline) and headline.proved is False:
        return "✕ the proof failed"
    if not headline.flagged:
        return "no block stands out"
    flagged = brief_blocks(headline.flagged)
    if not isinstance(headline, Headline):
        return f"▲ {flagged} of the candidate"
    if headline.recovered is None:
        skipped = record.find_skipped("requantize") is not None
        return f"▲ {flagged}, {'no checkpoint' if skipped else 'not repaired yet'}"
    proved = ", proved" if headline.proved else ""
    return f"▲ {flagged}, {headline.recovered:.1%} recovered{proved}"


def brief_blocks(flagged: Sequence[int]) -> str:
    """Flagged blocks by number, or how many they are."""
    if len(flagged) == 1:
        return f"block {flagged[0]}"
    few = len(flagged) <= FEW_FLAGGED
    return f"blocks {', '.join(map(str, flagged))}" if few else f"{len(flagged)} blocks"


def _name_flagged(record: AnyRecord) -> str:
    """ "Block 5 stands out", or that it is flagged where a limit asked for it."""
    flagged, spec = record.measured.flagged, record.spec
    blocks = ", ".join(str(block) for block in flagged)
    wanted = spec.top_k is not None or spec.delta_ppl is not None
    verbs = ("is flagged", "are flagged") if wanted else ("stands out", "stand out")
    one = len(flagged) == 1
    return f"Block {blocks} {verbs[0]}" if one else f"Blocks {blocks} {verbs[1]}"


def _write_passed(passed: bool, reasons: Sequence[str], file: str) -> str:
    """Whether a proof passed; where it did not, why, and the file that says more. reasons: none in
    proofs of earlier versions."""
    if passed:
        return "The checkpoint was reloaded from disk and is what the recipe says."
    return f"THE PROOF FAILED: {'; and '.join(reasons or [UNLIKE])} ({file})."


def describe_run_type(record: AnyRecord) -> ServedType | None:
    """What is known of serving a run's checkpoint, or a comparison's candidate, in its type. Of a
    run without a checkpoint, as if there were one. None where nothing is."""
    kind = None if record.serving is None else record.serving.type
    dtype, headline = record.source.dtype, record.headline
    if kind is not None or dtype not in LARGEST:
        return kind
    return describe_type(dtype, None if headline is None else headline.find_largest())


def write_run_type(record: AnyRecord) -> str:
    """What goes wrong where a run's checkpoint, or a comparison's candidate, is served in its type;
    empty where nothing is known to."""
    kind = describe_run_type(record)
    return "" if kind is None else write_type(kind.to_json())


def write_range(record: AnyRecord) -> str:
    """The largest activation, where it is, and what the type holds; empty for runs of versions that
    did not keep it."""
    kind, headline = describe_run_type(record), record.headline
    ranges = None if headline is None else headline.range
    if ranges is None or kind is None:
        return ""
    found = ranges.quantized
    times = kind.most / found.largest if found.largest > 0 else math.inf
    far = "far more" if times > FAR else f"{times:.3g} times as much"
    held = f"{kind.dtype} holds up to {kind.most:,.5g}, {far}"
    return f"{found.largest:,.5g}, {found.say_where()}; {held}"


def write_proof(proof: Mapping[str, Any], file: str) -> str:
    """A checkpoint's proof, a line each: what was measured, in its type too, and whether it
    passed."""
    measured = proof["measured"]
    low, high = measured["kl_interval"]
    numbers = f"PPL {measured['ppl']:.3f}, KL {measured['kl']:.5f} [{low:.5f}, {high:.5f}]"
    if measured["recovered"] is not None:
        low, high = measured["recovered_interval"]
        numbers += f", recovered {measured['recovered']:.1%} [{low:.1%}, {high:.1%}]"
    served = proof.get("served")
    if served and served["finite"]:
        numbers += f"\n{write_measured_type(MeasuredType(**served))}"
    return f"{numbers}\n{_write_passed(proof['passed'], proof.get('reasons') or (), file)}"


def write_kl(kl: float, decimals: int) -> str:
    """A KL with `decimals` decimals; as a power of ten where they would not show it."""
    is_plain = kl == 0 or kl >= 10**-decimals
    return Written(f"{kl:.{decimals}f}" if is_plain else f"{kl:.1e}", kl)


def write_bounded_kl(kl: Sequence[float], decimals: int) -> str:
    """A KL with its interval."""
    value, low, high = (write_kl(each, decimals) for each in kl)
    return Written(f"{value} [{low}, {high}]", *kl)


def _name_units(units: Sequence[str]) -> str:
    """ "Unit 5.qkv" or "Units 5.qkv and 5.o"."""
    if len(units) == 1:
        return f"Its unit {units[0]}"
    return f"Units {', '.join(units[:-1])} and {units[-1]}" if units else "Nothing"
