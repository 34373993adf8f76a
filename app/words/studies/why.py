"""What the study of a block's causes says, in words: the same on the terminal and on the page."""

import math
from collections.abc import Callable, Mapping, Sequence

from awqscope.app.words.numbers import show_token
from awqscope.diagnose.entries.part import Bounded
from awqscope.diagnose.statistics.spikes import is_noise
from awqscope.diagnose.studies.causes.answer import (
    Carrier,
    Causes,
    Finding,
    HeadAttention,
    HeadCauses,
    LinearCauses,
    Point,
    Split,
    TokenShare,
)
from awqscope.mixedprec.words import Written, join_words, write_number, write_ranges, write_share

ROLE_NAMES = {"q": "queries", "k": "keys", "v": "values", "o": "output projection"}
STEP_NAMES = {"rounding": "rounding", "scale": "AWQ's scales", "clip": "clipping"}
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
KIND_NAMES = {"first": "first token", "delimiter": "delimiters", "word": "other tokens"}
# What a model lacks -> what could not be asked of it.
LACKING = {
    "heads": "The weights of this architecture's attention cannot be told by head.",
    "experts": "The experts are measured as one: which tokens each sees is the router's choice.",
    "attention": "This architecture's attention does not show what it attends to.",
}
# What holds so many times its fair share is told of.
UNEVEN = 2.0
SHARES_OVERLAP = "Shares need not add up to 100%: errors make up for each other, or add."
# Kinds of tokens are told of that hold so much of a linear's error, and UNEVEN times their part of
# the tokens.
HEAVY = 0.25
HEAVY_NAMES = {
    "first": "First tokens are {} of all tokens and hold {} of its error.",
    "delimiter": "Delimiters are {} of all tokens and hold {} of its error.",
}


def write_power(value: float) -> str:
    """A large number by its power of ten: `4·10³`; smaller ones as they are."""
    if value < 1000 or not math.isfinite(value):
        return write_number(value, ".3g")
    power = math.floor(math.log10(value))
    digits = round(value / 10**power)
    if digits == 10:
        digits, power = 1, power + 1
    return Written(f"{digits}·10{str(power).translate(SUPERSCRIPTS)}", value)


def write_percent(value: float) -> str:
    """A relative error: `0.52%`, `12%`, `140%`, to two digits below 100%."""
    if abs(value) >= 1:
        return write_share(value, ".0%")
    return Written(f"{write_number(100 * value, '.2g')}%", value)


def write_part(share: Bounded) -> str:
    """A measured share with its interval: `62% (58% to 66%)`; `<1%` where it is below half a
    percent, and so is its interval."""
    value, low, high = (write_share(each, ".0%") for each in share)
    is_seen = max(map(abs, share)) >= 0.005
    return Written(f"{value} ({low} to {high})" if is_seen else "<1%", *share)


def short_name(linear: str) -> str:
    """A linear by the last part of its name."""
    return linear.rpartition(".")[2]


def name_briefly(linears: Sequence[str]) -> list[str]:
    """Linears of a block by the last part of their names; in full where two would be alike."""
    short = [short_name(linear) for linear in linears]
    return [*(short if len(set(short)) == len(short) else linears)]


def name_heads(role: str, heads: Sequence[int], causes: Causes) -> str:
    """Heads in a sentence. Where several query heads share a key-value head, that is said."""
    shared = role in "kv" and causes.kv_heads is not None and causes.kv_heads != causes.heads
    kind = "key-value head" if shared else "head"
    return f"{kind}{'s' * (len(heads) > 1)} {write_ranges(heads)}"


def name_served(head: HeadCauses, causes: Causes) -> str:
    """A head in a table: which it is, and for a shared key-value head whom it serves."""
    if head.role in "kv" and causes.kv_heads != causes.heads:
        return f"{head.head} (of heads {write_ranges(head.serves)})"
    return str(head.head)


def _whose(finding: Finding, causes: Causes) -> str:
    """ "head 3's values (v_proj)", or "the values of heads 2, 3 (v_proj)"."""
    assert finding.role is not None and finding.linear is not None
    owner = name_heads(finding.role, finding.heads, causes)
    what, linear = ROLE_NAMES[finding.role], short_name(finding.linear)
    if len(finding.heads) == 1:
        return f"{owner}'s {what} ({linear})"
    return f"the {what} of {owner} ({linear})"


def _enters(finding: Finding, through: str) -> str:
    by = f", by {STEP_NAMES[finding.step]}" if finding.step else ""
    return f"{write_part(finding.share)} of the damage enters through {through}{by}"


def _say_conditioning(finding: Finding, causes: Causes) -> str:
    numbers = finding.numbers
    lines = f"{numbers['size']:.0f} {'columns' if finding.role == 'o' else 'rows'}"
    whose = f"its {lines}" if len(finding.heads) == 1 else f"the {lines} of each"
    return (
        f"{_enters(finding, _whose(finding, causes))}: {whose} have a condition number of "
        f"{write_power(numbers['condition'])}, against {write_power(numbers['usual'])} in other "
        "blocks: they lie near a few directions."
    )


def _say_head(finding: Finding, causes: Causes) -> str:
    return (
        f"{_enters(finding, _whose(finding, causes))}: {finding.numbers['times']:.0f} times as "
        "much error as the median of the other heads brings."
    )


def _say_channel(finding: Finding, _causes: Causes) -> str:
    numbers = finding.numbers
    through = f"input channel {finding.channel} of {finding.linear}"
    times, weight = (write_number(numbers[each], ".2g") for each in ("times", "weight"))
    return (
        f"{_enters(finding, through)}: its activations reach {times} times the median channel's, "
        f"and its weights are {weight} times as large as the median channel's."
    )


def _say_stretched(finding: Finding, _causes: Causes) -> str:
    numbers = finding.numbers
    through = f"weight group {numbers['group']:.0f} of {finding.linear}"
    return (
        f"{_enters(finding, through)}: the weights of its input channel {finding.channel} are "
        f"{numbers['times']:.0f} times the group's median, so that the rest of the group is "
        "rounded coarsely."
    )


def _say_step(finding: Finding, _causes: Causes) -> str:
    """A step that hurts on the calibration text too, or in experts alone."""
    if finding.linear is None:
        return f"{_blame(finding)}. {_write_without(finding)}"
    return (
        f"{_blame(finding)}: {'they add' if finding.step == 'scale' else 'it adds'} "
        f"{_write_added(finding.numbers['here'])} to the error of {finding.linear}'s output. "
        f"{_write_without(finding)}"
    )


def _say_calibration(finding: Finding, causes: Causes) -> str:
    numbers = finding.numbers
    where = f"on {finding.text}" if finding.text else "here"
    return (
        f"{_blame(finding)}: chosen on {causes.calibration}, where "
        f"{'they add' if finding.step == 'scale' else 'it adds'} {_write_added(numbers['there'])} "
        f"to the error of {finding.linear}'s output, and not for this text, where "
        f"{'they add' if finding.step == 'scale' else 'it adds'} {_write_added(numbers['here'])}. "
        f"Input channel {finding.channel} is {write_number(numbers['larger'], '.3g')} times as "
        f"large {where} as in the calibration text. {_write_without(finding)}"
    )


def _blame(finding: Finding) -> str:
    assert finding.step is not None
    step = "AWQ's scales cause" if finding.step == "scale" else "Clipping causes"
    where = f" on {finding.text}" if finding.text else ""
    return f"{step} {write_part(finding.share)} of the damage{where}"


def _write_added(error: float) -> str:
    """What a step adds to a relative error: `+3.2%` of the output's energy."""
    return write_share(error, "+.2%")


def _write_without(finding: Finding) -> str:
    before, after = (write_number(finding.numbers[each]) for each in ("plain", "served"))
    if finding.step == "scale":
        return f"With plain rounding the block costs KL {before}, with these scales {after}."
    return f"Without its clips the block costs KL {before}, with them {after}."


# Cause -> its sentence. When each holds is decided in diagnose/studies/causes/rules.py.
SENTENCES: Mapping[str, Callable[[Finding, Causes], str]] = {
    "conditioning": _say_conditioning,
    "head": _say_head,
    "channel": _say_channel,
    "stretched": _say_stretched,
    "clip": _say_step,
    "scale": _say_step,
    "calibration": _say_calibration,
}


def say(finding: Finding, causes: Causes) -> str:
    """A cause in words."""
    return SENTENCES[finding.cause](finding, causes)


def write_findings(causes: Causes) -> list[str]:
    """What was found, a sentence a cause, the largest first, and after several how their shares
    are to be read; that no cause stands out, and where most of the damage is, where none does."""
    if causes.findings:
        said = [say(finding, causes) for finding in causes.findings]
        return [*said, SHARES_OVERLAP] if len(said) > 1 else said
    if causes.kl[0] <= 0 or is_noise(causes.kl[0], causes.floor):
        return ["The block costs nothing that can be told from rounding."]
    most = order_linears(causes)[0]
    return [
        "No cause stands out: no head, channel or weight group and none of AWQ's steps surely "
        f"causes a fifth of the damage. {most.linear} holds most of it, {write_part(most.share)}."
    ]


def order_linears(causes: Causes) -> list[LinearCauses]:
    """The linears, the dearest first."""
    return sorted(causes.linears, key=lambda linear: -linear.kl[0])


def write_steps(causes: Causes) -> str:
    """What AWQ's steps do to the block's damage, in a sentence."""
    damage = causes.damage
    return (
        f"Rounding alone, neither scaled nor clipped, would cost KL "
        f"{write_number(damage.rounding[0])} nats a token; AWQ's scales "
        f"{_write_change('take', 'add', damage.scale[0])}, clipping "
        f"{_write_change('takes', 'adds', damage.clip[0])}: KL {write_number(damage.total[0])} in "
        "all."
    )


def write_windows(causes: Causes) -> str:
    """That one window holds far more than its share of the damage; empty where none does."""
    total = sum(causes.by_window)
    worst = max(range(len(causes.by_window)), key=causes.by_window.__getitem__)
    share = causes.by_window[worst] / total if total > 0 else 0.0
    if share * len(causes.by_window) < UNEVEN:
        return ""
    return (
        f"Window {causes.windows[worst]} holds {write_share(share, '.0%')} of the damage: shares "
        "have wide intervals where most of it comes of a few tokens."
    )


def _write_change(take: str, add: str, value: float) -> str:
    """ "take 0.01 off" or "add 0.01"; take, add: the verbs in their person."""
    size = write_number(abs(value))
    return f"{add} {size}" if value > 0 else f"{take} {size} off"


def name_point(point: Point) -> str:
    """A point inside the block, in a table or on an axis."""
    if point.kind == "output":
        return "block output"
    if point.kind == "residual":
        return "residual stream"
    return f"{'into ' if point.side == 'in' else ''}{point.name}"


def to_decibels(error: float) -> float | None:
    """SQNR of a relative error; None where there is no error."""
    return -10 * math.log10(error) if error > 0 else None


def write_growth(causes: Causes) -> str:
    """Where the block's error begins, and where it is largest, in a sentence."""
    points = [point for point in causes.growth if point.error[0] > 0]
    if not points:
        return "No point inside the block has an error."
    first, last = points[0], points[-1]
    worst = max(points, key=lambda point: point.error[0])
    return (
        f"The error begins with {_write_error(first)}, is largest with {_write_error(worst)}, and "
        f"leaves the block with {write_percent(last.error[0])} of its output."
        if worst is not last
        else f"The error begins with {_write_error(first)} and is largest where it leaves the "
        f"block: {write_percent(last.error[0])}."
    )


def _write_error(point: Point) -> str:
    return f"{write_percent(point.error[0])} {_place_point(point)}"


def _place_point(point: Point) -> str:
    """Where a point is, in a sentence."""
    if point.kind == "output":
        return "at the block's output"
    if point.kind == "residual":
        return "in the residual stream"
    return f"at the {'input' if point.side == 'in' else 'output'} of {point.name}"


def find_guilty(causes: Causes) -> HeadAttention | None:
    """The query head to look at: of the first finding that names heads, the one whose attention
    moves most; else of all."""
    named: Sequence[int] = ()
    for finding in causes.findings:
        if finding.heads:
            named = [
                head
                for linear in causes.linears
                for part in linear.heads
                if part.role == finding.role and part.head in finding.heads
                for head in part.serves
            ]
            break
    known = [head for head in causes.attention if not named or head.head in named]
    return max(known, key=lambda head: head.moved, default=None)


def write_attention(causes: Causes) -> str:
    """What the guilty head attends to differently, in a sentence; empty where that is unknown."""
    head = find_guilty(causes)
    if head is None:
        return ""
    before, after = (write_number(each, ".2f") for each in head.entropy)
    first, then = (write_share(each) for each in head.first)
    return (
        f"Head {head.head} puts {write_share(head.moved)} of its attention on other tokens than "
        f"the reference does: entropy {before} → {after} nats, on the first token {first} → {then}."
    )


def list_carriers(causes: Causes) -> list[tuple[LinearCauses, Carrier]]:
    """The tokens that carry massive activations, each with the linear that they go into."""
    return [(linear, carrier) for linear in causes.linears for carrier in linear.carriers]


def write_carriers(causes: Causes) -> str:
    """Who carries massive activations, in sentences; empty where nobody does."""
    said = []
    for linear in causes.linears:
        if not linear.carriers:
            continue
        top = linear.carriers[0]
        kinds = join_words(list(dict.fromkeys(write_kind(c) for c in linear.carriers)))
        also = "".join(map(_write_heavy, linear.tokens))
        said.append(
            f"Into {linear.linear}, channel {top.channel} reaches {write_number(top.size, '.3g')}, "
            f"{top.times:.0f} times what is usual, at {kinds}.{also}"
        )
    return " ".join(said)


def _write_heavy(share: TokenShare) -> str:
    """That tokens of a kind hold far more than their part of an error; empty where they do not."""
    if share.kind not in HEAVY_NAMES or share.error < max(HEAVY, UNEVEN * share.tokens):
        return ""
    tokens, error = write_share(share.tokens), write_share(share.error)
    return f" {HEAVY_NAMES[share.kind].format(tokens, error)}"


def write_kind(carrier: Carrier) -> str:
    """A token that carries a massive activation, by what it is."""
    if carrier.kind == "first":
        return "the first token"
    return f"“{show_token(carrier.text)}”"


def write_lacking(causes: Causes) -> list[str]:
    """What could not be asked, a sentence each."""
    said = [LACKING[each] for each in causes.lacking]
    if causes.kept:
        said.append(f"{join_words(causes.kept)} stay at 16 bits and are not looked at.")
    return said


def write_asked(causes: Causes) -> str:
    """What it was measured on, in a few words."""
    count = len(causes.windows)
    return f"{count} windows of {causes.seq_len} tokens of {join_words(causes.texts)}"


def split_cells(split: Split | None) -> dict[str, str]:
    """An error by steps, in a table's cells."""
    if split is None:
        return {}
    steps = {"rounding": split.rounding, "scale": split.scale, "clip": split.clip}
    cells = {name: write_share(value[0], "+.2%") for name, value in steps.items()}
    return {**cells, "total": write_share(split.total[0], ".2%")}
