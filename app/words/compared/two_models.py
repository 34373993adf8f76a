"""What is said of two models side by side: a verdict, numbers, what differs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from awqscope.app.words.compared.comparison import name_kind
from awqscope.diagnose.compared.changes import subtract_costs
from awqscope.diagnose.entries.headline import Headline
from awqscope.diagnose.gate.findings import Finding, Missing
from awqscope.diagnose.gate.paired import Pair, Side, hash_source, read_widths
from awqscope.diagnose.gate.shares import Cost
from awqscope.diagnose.options.option import list_options
from awqscope.diagnose.runs.record import CANDIDATE, MIXED, UNIFORM, AnyRecord, Comparison
from awqscope.mixedprec.scheme import Width, sort_widths
from awqscope.mixedprec.words import (
    NOTHING,
    bound_points,
    join_words,
    write_bounded,
    write_interval,
    write_number,
    write_points,
    write_share,
    write_size,
)

KINDS = {"compare": "a comparison of a checkpoint made elsewhere", "run": "a run"}
# How a block's damage is known, by the model that it is of.
HOW = {
    MIXED: "each block alone at the recipe's widths, as the sum of its units where any is promoted",
    UNIFORM: "each block quantized alone",
    CANDIDATE: "each block swapped in alone",
}
MOST = 5

Row = Mapping[str, Any]


def name_side(side: Side) -> str:
    """A side's model in a word or two: "mixed", "uniform, 4-bit AWQ", "candidate, 4-bit GPTQ"."""
    if side.model == MIXED:
        return MIXED
    kind = name_kind(side.record)
    return side.model if kind == "the candidate" else f"{side.model}, {kind}"


def name_models(record: AnyRecord, models: Sequence[str]) -> dict[str, str]:
    """Models to choose from, as a switch names them."""
    low = "" if isinstance(record, Comparison) else f" {record.spec.bits}-bit"
    return {model: f"{model}{low * (model == UNIFORM)}" for model in models}


def write_pair_verdict(a: Side, b: Side, pair: Pair) -> str:
    """Which of the two is better, in a sentence or two."""
    if pair.same_model:
        return f"A and B are the same model: {pair.same_model}."
    if pair.same_tokens is False:
        return (
            "A and B were measured on different tokens: no number of one can be held against the "
            "other's. Measure both on the same text with the same --windows and --seq-len."
        )
    kl = pair.changes["kl"]
    if isinstance(kl, Missing):
        return f"Which of the two is better cannot be told: {kl.reason}."
    known = [
        f"KL {_write_change(kl, '+.5f')} nats a token",
        f"perplexity {_write_change(pair.changes['ppl'], '+.3f')}",
        f"same top token {_write_points(pair.changes['top1_agreement'])}",
    ]
    before, after = (side.record.measured.bytes.of(side.model) for side in (a, b))
    if before and after:
        known.append(f"size {write_number(after / before - 1, '+.1%')}")
    if math.isinf(kl.low) or math.isinf(kl.high):
        found = "There are too few windows to tell A and B apart"
    elif kl.low > 0:
        found = "B is worse than A"
    elif kl.high < 0:
        found = "B is better than A"
    else:
        found = "A and B cannot be told apart"
    ppl = pair.changes["ppl"]
    if isinstance(ppl, Finding) and kl.high < 0 < ppl.low:
        found = "B is nearer to its 16-bit model than A, but its perplexity is higher"
    elif isinstance(ppl, Finding) and ppl.high < 0 < kl.low:
        found = "B is further from its 16-bit model than A, but its perplexity is lower"
    said = f"{found}: {', '.join(known)} (B − A)."
    if hash_source(a.record) != hash_source(b.record):
        said += " Each is held against a 16-bit model of its own, and these differ."
    return said


def _write_change(change: Finding | Missing, form: str) -> str:
    if isinstance(change, Missing):
        return "not known"
    return write_bounded(change.value, (change.low, change.high), form)


def _write_points(change: Finding | Missing) -> str:
    if isinstance(change, Missing):
        return "not known"
    return f"{write_points(change.value)} {bound_points((change.low, change.high))}"


def headline_rows(a: Side, b: Side, pair: Pair) -> list[dict[str, str]]:
    """The headline numbers of both sides, and the difference with its interval. On different
    tokens only sizes have a difference."""
    comparable = pair.same_tokens is not False

    def values(entry: str, reference: bool = False) -> list[float | None]:
        return [
            getattr(side.record.measured, entry).of("reference" if reference else side.model)
            for side in (a, b)
        ]

    def row(
        what: str, found: Sequence[float | None], form: str, change: str = ""
    ) -> dict[str, str]:
        known = comparable and None not in found
        bounded, is_share = pair.changes.get(change), form.endswith("%")
        difference, bounds = (found[1] or 0.0) - (found[0] or 0.0), ""
        if isinstance(bounded, Finding):
            difference = bounded.value
            ends = (bounded.low, bounded.high)
            bounds = bound_points(ends) if is_share else write_interval(ends, f"+{form}")
        written = write_points(difference) if is_share else write_number(difference, f"+{form}")
        return {
            "what": what,
            "a": write_number(found[0], form),
            "b": write_number(found[1], form),
            "difference": written if known else NOTHING,
            "interval": bounds,
        }

    size = values("bytes")
    rows = [
        row("Perplexity", values("ppl"), ".3f", "ppl"),
        row("Perplexity of its 16-bit model", values("ppl", True), ".3f"),
        row("KL, mean, nats a token", values("kl"), ".5f", "kl"),
        row("KL, p99.9", values("kl_p999"), ".3f"),
        row("Same top token", values("top1_agreement"), ".1%", "top1_agreement"),
        {
            "what": "Size of all weights",
            "a": write_size(size[0]),
            "b": write_size(size[1]),
            "difference": write_number(size[1] / size[0] - 1, "+.1%")
            if size[0] and size[1]
            else NOTHING,
            "interval": "",
        },
    ]
    if MIXED in (a.model, b.model):
        back = [_write_recovered(side) for side in (a, b)]
        what = "Recovered of its uniform's KL"
        rows.append({"what": what, "a": back[0], "b": back[1], "difference": "", "interval": ""})
    return rows


def _write_recovered(side: Side) -> str:
    headline = side.record.headline
    if side.model != MIXED or not isinstance(headline, Headline):
        return NOTHING
    return write_share(headline.recovered)


def different_settings(a: Side, b: Side) -> list[dict[str, str]]:
    """What differs of what decides the two sides' numbers. Files with the same hash do not
    differ, whatever their paths; neither do settings that one kind of model does not have or that
    were not set."""
    first, second = _list_settings(a), _list_settings(b)
    absent = ("not known", None)
    rows = []
    for name in dict.fromkeys([*first, *second]):
        (mine, one), (theirs, other) = first.get(name, absent), second.get(name, absent)
        is_of_one_kind = a.model != b.model and None in (one, other)
        # An option that an earlier version did not have was off.
        if one == other or is_of_one_kind or not (one or other):
            continue
        rows.append({"what": name, "a": mine, "b": theirs})
    return rows


def _list_settings(side: Side) -> dict[str, tuple[str, Any]]:
    """What decides a side's numbers: setting -> as it is shown, and what tells it from others."""
    record, spec = side.record, side.record.spec.list_binding()
    for option in ("reference", "model", "candidate", "valid", "calib"):
        spec.pop(option, None)
    if side.model == UNIFORM:
        # Of this model nothing is promoted, however it is chosen what is.
        spec.pop("rescue_bits", None)
    text, source = record.ppl_definition, record.source
    found = {
        "kind": (KINDS[record.kind],) * 2,
        "16-bit model": _name_file(record.model, " ".join(hash_source(record))),
        "widths": _describe_widths(side),
        "validation text": _name_file(text.text, text.text_sha256),
        "validation tokens": _name_file("", text.tokens_sha256),
    }
    if isinstance(record, Comparison):
        hashes = " ".join(sorted(record.candidate.hashes.values()))
        found["candidate"] = _name_file(record.candidate.path, hashes)
    else:
        calibration = record.calibration
        found["calibration text"] = _name_file(calibration.text, calibration.text_sha256)
        found["calibration tokens"] = _name_file("", calibration.tokens_sha256)
    options = list_options(type(record.spec))
    found |= {options[key].label: (write_value(value), value) for key, value in spec.items()}
    plain = {f"version of {name}": value for name, value in record.versions.items()}
    plain |= {"source architecture": source.architecture, "source dtype": source.dtype}
    return found | {key: (value, value) for key, value in plain.items()}


def _name_file(path: str, digest: str | None) -> tuple[str, Any]:
    """A file by its path and the beginning of its hash, told from others by the hash; runs of
    earlier versions lack some."""
    known = "hash not known" if digest is None else f"{digest[:12]}…"
    shown = f"{path} ({known})" if path else known
    return shown, path if digest is None else digest


def _describe_widths(side: Side) -> tuple[str, Any]:
    """The widths of a side's units in words, told from others by every unit's."""
    widths = read_widths(side)
    if widths is None:
        return "not known", None
    by_width: dict[Width, list[str]] = {}
    for unit, width in widths.items():
        by_width.setdefault(width, []).append(unit)
    known = sort_widths(by_width)
    # Of as many units the narrower.
    most = max(known, key=lambda width: len(by_width[width]))
    others = [
        f"{join_words(by_width[width][:MOST])}{' and more' * (len(by_width[width]) > MOST)} "
        f"at {width}"
        for width in known
        if width != most
    ]
    return f"{most} bits" + (f", but {', '.join(others)}" if others else ""), widths


def write_value(value: Any) -> str:
    """A setting as text."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def block_differences(a: Mapping[int, Cost], b: Mapping[int, Cost]) -> list[dict[str, Any]]:
    """B − A of the damage of every block that both have, with its bounds."""
    return [
        {
            "block": each.of,
            "a": each.before,
            "b": each.after,
            "difference": each.difference,
            "low": each.low,
            "high": each.high,
        }
        for each in subtract_costs(a, b)
    ]


def blocks_summary(
    rows: Sequence[Row], a: Side, b: Side, pair: Pair, metric: str, form: str
) -> str:
    """What is set side by side, and which blocks are surely better or worse off; no block is said
    to be either where the texts differ, or where that is not known."""
    said = f"{'KL' if metric == 'kl' else 'ΔPPL'} by block, B − A. "
    if a.model == b.model:
        said += f"Both: {HOW[a.model]}."
    else:
        said += f"A: {HOW[a.model]}. B: {HOW[b.model]}."
    if is_judged(pair):
        better = sorted((r for r in rows if r["high"] < 0), key=lambda r: r["difference"])
        worse = sorted((r for r in rows if r["low"] > 0), key=lambda r: -r["difference"])
        named = _name_blocks(better, "better", form), _name_blocks(worse, "worse", form)
        return f"{' '.join(named)} {said}"
    if pair.same_model:
        return f"One model: what differs here is how it was measured. {said}"
    return f"{said} The texts differ: no block is better or worse for it."


def is_judged(pair: Pair) -> bool:
    """Whether a difference of blocks says that one side is better."""
    return pair.same_tokens is True and not pair.same_model


def _name_blocks(found: Sequence[Row], word: str, form: str) -> str:
    if not found:
        return f"No block is surely {word} in B."
    listed = ", ".join(
        f"{r['block']} ({write_number(r['difference'], form)})" for r in found[:MOST]
    )
    more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
    return f"{word.capitalize()} in B: {listed}{more}."
