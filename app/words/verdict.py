"""What a run found, in a few sentences: the same on the terminal, on the page and in reports."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from awqscope.app.words.comparison import name_candidate, name_uniform, write_places
from awqscope.diagnose.runs.directory import is_comparison
from awqscope.diagnose.runs.type_words import UNLIKE, describe_type, name_place, write_measured_type
from awqscope.mixedprec.models.dtypes import LARGEST, write_type

# A type whose largest number is this many times the largest activation has room enough.
FAR = 1e6
# Up to this many flagged blocks are named in a list; more are counted.
FEW_FLAGGED = 3


def write_verdict(record: Mapping[str, Any], promoted: Sequence[str]) -> str:
    """The run in a few sentences that need no other line to be understood."""
    headline = record["headline"]
    if record["state"] == "failed":
        error = record["error"] or {"message": "no reason was recorded", "remedy": ""}
        remedy = f" Remedy: {error['remedy']}." if error["remedy"] else ""
        return f"The run stopped: {error['message']}.{remedy}"
    at_work = ("running", "stopped")
    stage = next((s for s, e in record["stages"].items() if e["state"] in at_work), "start")
    stopped = record["state"] == "stopped"
    before = f"The run was stopped before its end ({stage}); " if stopped else ""
    if "kl" not in headline:
        before = before or f"The run is under way ({stage}); "
        return f"{before}nothing is measured yet."
    if stopped:
        before += "this is what it had measured. "
    ppl, flagged = headline["ppl"], headline["flagged"]
    compared = is_comparison(record)
    kl, points = headline["kl"]["uniform"], f"{ppl['uniform'] - ppl['reference']:+.3f} perplexity"
    if compared:
        cost = f"{name_candidate(record)} costs {points} against its reference "
    else:
        cost = f"{name_uniform(record)} costs this model {points} "
    cost += (
        f"({ppl['reference']:.3f} → {ppl['uniform']:.3f}) and a KL of "
        f"{write_kl(kl, 4)} nats a token."
    )
    if kl <= 0:
        what = "It" if compared else "Quantizing"
        found = f"{what} changes nothing that was measured."
    elif record["source"]["blocks"] < 4 and not flagged:
        found = "With fewer than four blocks none can be told to stand out; see the table."
    elif not flagged:
        found = "No block stands out: the damage is spread, and there is no spike to repair."
    elif compared:
        found = f"{_name_flagged(record)}."
    else:
        stand = _name_flagged(record)
        found = f"{stand}. {_name_units(promoted)} at {record['spec']['rescue_bits']} bits"
        skipped = record["stages"].get("requantize", {})
        if not promoted:
            found = f"{stand}. The repair is not chosen yet."
        elif headline["recovered"] is None:
            predicted = headline.get("predicted_recovered")
            found += (
                "."
                if predicted is None
                else f" should give back {predicted:.1%} of the lost KL (a prediction)."
            )
            if skipped.get("state") == "skipped":
                found += f" No checkpoint was written: {skipped.get('reason', '')}."
        else:
            low, high = headline["recovered_interval"]
            size = headline["bytes"]["mixed"] / headline["bytes"]["uniform"] - 1
            verb = "gives" if len(promoted) == 1 else "give"
            found += (
                f" {verb} back {headline['recovered']:.1%} of the lost KL "
                f"({low:.1%} to {high:.1%}) for {size:+.1%} in size."
            )
    proved, reasons = headline.get("proved"), headline.get("reasons") or ()
    tail = "" if proved is None else f" {_write_passed(proved, reasons, 'proof.json')}"
    of_type = write_type(describe_run_type(record))
    # A proof that failed by the type has said so.
    if of_type and set(reasons) <= {UNLIKE}:
        tail += f" {of_type}."
    outside = write_places(record.get("places", ()))
    return f"{before}{cost} {found}{tail}" + (f" {outside}" if outside else "")


def write_brief(state: str, record: Mapping[str, Any]) -> str:
    """What a run found in a few words, for lists."""
    headline = record.get("headline", {})
    if state == "failed":
        return (record.get("error") or {}).get("message", "failed")
    if "kl" not in headline:
        return "nothing measured yet"
    if headline.get("proved") is False:
        return "✕ the proof failed"
    if not headline["flagged"]:
        return "no block stands out"
    flagged = brief_blocks(headline["flagged"])
    if is_comparison(record):
        return f"▲ {flagged} of the candidate"
    if headline.get("recovered") is None:
        skipped = record["stages"].get("requantize", {}).get("state") == "skipped"
        return f"▲ {flagged}, {'no checkpoint' if skipped else 'not repaired yet'}"
    proved = ", proved" if headline.get("proved") else ""
    return f"▲ {flagged}, {headline['recovered']:.1%} recovered{proved}"


def brief_blocks(flagged: Sequence[int]) -> str:
    """Flagged blocks by number, or how many they are."""
    if len(flagged) == 1:
        return f"block {flagged[0]}"
    few = len(flagged) <= FEW_FLAGGED
    return f"blocks {', '.join(map(str, flagged))}" if few else f"{len(flagged)} blocks"


def _name_flagged(record: Mapping[str, Any]) -> str:
    """ "Block 5 stands out", or that it is flagged where a limit asked for it."""
    flagged, spec = record["headline"]["flagged"], record["spec"]
    blocks = ", ".join(str(block) for block in flagged)
    wanted = spec["top_k"] is not None or spec["delta_ppl"] is not None
    verbs = ("is flagged", "are flagged") if wanted else ("stands out", "stand out")
    one = len(flagged) == 1
    return f"Block {blocks} {verbs[0]}" if one else f"Blocks {blocks} {verbs[1]}"


def _write_passed(passed: bool, reasons: Sequence[str], file: str) -> str:
    """Whether a proof passed; where it did not, why, and the file that says more. reasons: none in
    proofs of earlier versions."""
    if passed:
        return "The checkpoint was reloaded from disk and is what the recipe says."
    return f"THE PROOF FAILED: {'; and '.join(reasons or [UNLIKE])} ({file})."


def describe_run_type(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What is known of serving a run's checkpoint, or a comparison's candidate, in its type; see
    `write_type`. Of a run without a checkpoint, as if there were one. None where nothing is."""
    kind, dtype = (record.get("serving") or {}).get("type"), record["source"].get("dtype")
    return kind or (describe_type(dtype, record["headline"]) if dtype in LARGEST else None)


def write_range(record: Mapping[str, Any]) -> str:
    """The largest activation, where it is, and what the type holds; empty for runs of versions that
    did not keep it."""
    place = (record["headline"].get("range") or {}).get("uniform")
    kind = describe_run_type(record)
    if place is None or kind is None:
        return ""
    times = kind["most"] / place["largest"] if place["largest"] > 0 else math.inf
    far = "far more" if times > FAR else f"{times:.3g} times as much"
    held = f"{kind['dtype']} holds up to {kind['most']:,.5g}, {far}"
    return f"{place['largest']:,.5g}, {name_place(place)}; {held}"


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
        numbers += f"\n{write_measured_type(served)}"
    return f"{numbers}\n{_write_passed(proof['passed'], proof.get('reasons') or (), file)}"


def write_kl(kl: float, decimals: int) -> str:
    """A KL with `decimals` decimals; as a power of ten where they would not show it."""
    return f"{kl:.{decimals}f}" if kl == 0 or kl >= 10**-decimals else f"{kl:.1e}"


def _name_units(units: Sequence[str]) -> str:
    """ "Unit 5.qkv" or "Units 5.qkv and 5.o"."""
    if len(units) == 1:
        return f"Its unit {units[0]}"
    return f"Units {', '.join(units[:-1])} and {units[-1]}" if units else "Nothing"
