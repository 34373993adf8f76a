"""What is said of a run's calibration: the sentences that the advice comes to, and its tables."""

from collections.abc import Mapping, Sequence

from awqscope.app.words.numbers import shorten_specs
from awqscope.diagnose.entries.part import Bounded
from awqscope.diagnose.options.shared import FAST
from awqscope.diagnose.studies.calibration.answer import (
    LEAST_DOMAIN_GAIN,
    LEAST_GAIN,
    Beside,
    Calibrated,
    CalibrationAdvice,
    DomainAdvice,
    StabilityAdvice,
    WindowsAdvice,
)
from awqscope.mixedprec.words import (
    join_words,
    write_bounded,
    write_count,
    write_number,
    write_share,
)

TITLE = "Calibration"
SUMMARY = (
    "How far AWQ's choices depend on the calibration windows, and whether more windows or another "
    "text would do less damage."
)

CURVE_COLUMNS = {
    "name": "Calibration",
    "windows": "Windows",
    "tokens": "Tokens",
    "kl": "KL [95%]",
    "gain": "Gives back [95%]",
    "ppl": "PPL",
    "delta": "ΔPPL [95%]",
}
PAIR_COLUMNS = {
    "pair": "Beside each other",
    "bits": "Bits",
    "equal": "Equal ratios",
    "kinds": "By kind of unit",
    "clips": "Clips equal, a step apart, more",
    "share": "KL between them, of the damage",
    "difference": "Damage differs by",
}
# The shares of clips that are told apart, by key.
CLIPS = {
    "clips_0": "Clips equal",
    "clips_1": "Clips a step apart",
    "clips_2": "Clips further apart",
}
# What is saved of a cell with several numbers, in columns of their own.
PAIR_APART = {"equal": {"same": "Equal ratios", "of": "Of"}, "clips": CLIPS}
Rows = list[dict[str, str]]


def name_texts(advice: CalibrationAdvice) -> dict[str, str]:
    """SPEC -> its short name, of every text."""
    specs = [advice.calib, *(column.text for column in advice.columns)]
    specs += [text for each in advice.calibrations for text in each.texts]
    unique = list(dict.fromkeys(specs))
    return dict(zip(unique, shorten_specs(unique), strict=True))


def name_calibration(each: Calibrated, names: Mapping[str, str]) -> str:
    """What a calibration is called. names: of texts."""
    last = names[each.texts[-1]]
    half = "half of it" if is_half(each) else f"{each.of_last:,} of its {each.windows:,} windows"
    named = {
        "run": "the run's own",
        "count": f"{each.windows:,} windows",
        "text": f"{last}, {each.windows:,} windows",
        "both": f"{half} {last}",
    }
    return named.get(each.role, each.name)


def is_half(each: Calibrated) -> bool:
    """Whether half of a calibration's windows are of the last of its texts, which may be short."""
    return each.of_last == each.windows // 2


def write_part(value: float) -> str:
    """A share of the damage."""
    return write_share(value, ".1%")


def write_gain(gain: Bounded) -> str:
    """What a gain does, with its interval: `give back 1.2% (0.8% to 1.6%)`, `add 0.3% (…)`."""
    does = "give back" if gain[0] >= 0 else "add"
    return f"{does} {_write_size(gain)}"


def _write_size(share: Bounded) -> str:
    """A share without its sign, with its interval."""
    value, low, high = map(write_part, _drop_sign(share))
    return f"{value} ({low} to {high})"


def _drop_sign(share: Bounded) -> Bounded:
    """A share without its sign; its interval is then that of what is said to be added."""
    value, low, high = share
    return share if value >= 0 else (-value, -high, -low)


def write_windows(advice: WindowsAdvice) -> str:
    """How many windows suffice."""
    windows, beside = f"{advice.windows:,}", f"{advice.beside:,}"
    gain = write_gain(advice.gain)
    # Above its least, the limit is what another draw changes.
    is_raised = advice.limit > LEAST_GAIN
    limit = write_part(advice.limit)
    drawn = f"another draw of windows changes ({limit})"
    enough = f"{windows} calibration windows suffice: {beside} {gain} of the damage."
    still = f"{windows} calibration windows still {gain} of the damage of {beside}"
    if is_raised:
        enough = f"More than {windows} calibration windows give back no more than {drawn}: "
        enough += f"{beside} {gain} of the damage."
        still += f", more than {drawn}"
    said = {
        "enough": enough,
        "unclear": f"From {windows} calibration windows on no more surely give back over "
        f"{f'what {drawn}' if is_raised else limit}: {beside} {gain} of the damage.",
        "more": f"{still}: more may give back more.",
    }
    return said[advice.verdict]


def write_of_run(advice: CalibrationAdvice, found: WindowsAdvice) -> str:
    """Whether the run's own windows are as good, and how to have better ones."""
    is_as_run = advice.search == advice.run_search
    own = f"The run's search{'' if is_as_run else f', {advice.run_search},'} read {advice.read:,}"
    own += f" of its {advice.given:,} windows" if advice.read < advice.given else " windows"
    more, gain = f"{found.windows:,}", write_gain(found.of_run)
    if not is_as_run:
        more += f", searched {advice.search},"
        gain += " by that search and by their number together"
    if found.of_run[1] <= found.limit:
        is_noise = found.limit > LEAST_GAIN and abs(found.of_run[0]) < found.limit and is_as_run
        noise = f", as another draw may (up to {write_part(found.limit)})"
        return f"{own}; {more} {gain}{noise * is_noise}."
    most = advice.fast_tokens
    if advice.search == FAST and most is not None and found.windows * advice.seq_len > most:
        return (
            f"{own}; {more} {gain}, which a run's fast search does not read. One with "
            "--search exact does: calibrate with --search exact tells what that gives back."
        )
    options = f"--calib-windows {found.windows}"
    if not is_as_run:
        options = f"--search {advice.search} {options}"
    return f"{own}; {more} {gain}: run it with {options}."


def write_stability(found: StabilityAdvice) -> str:
    """What halves of the windows agree on."""
    apart = _write_size(found.difference)
    said = {
        "steady": f"they cost the same, but for {apart}",
        "unsteady": f"one costs {apart} more of the damage: the choices are the windows'",
        "unclear": f"whether they cost the same is not sure: they differ by {apart} of the damage",
    }
    return (
        f"Halves of the run's windows agree on {found.equal:,} of {found.of:,} scale ratios. Their "
        f"models are apart by a KL of {write_part(found.share[0])} of the damage; "
        f"{said[found.verdict]}."
    )


def write_domain(found: DomainAdvice, advice: CalibrationAdvice, names: Mapping[str, str]) -> str:
    """Whether a validation text is covered."""
    valid, added = names[found.valid], names[found.calib]
    both = next(each for each in advice.find("both") if each.texts[-1] == found.calib)
    if not is_half(both):
        added += f" ({both.of_last:,} of {both.windows:,} windows)"
    value, low, high = map(write_part, _drop_sign(found.gain))
    there = f"{added} too {'gives back' if found.gain[0] >= 0 else 'adds'} {value} there"
    there += f" ({low} to {high})"
    # Above its least, the limit is what another draw gives back.
    if found.limit > LEAST_DOMAIN_GAIN:
        there += f", and another draw of windows gives back up to {write_part(found.limit)}"
    if found.verdict == "uncovered":
        said = f"{valid} is not covered by {names[advice.calib]}: calibrating on {there}; add some "
        said += "of it."
        if found.elsewhere[2] < 0:
            cost = -found.elsewhere[0]
            said += f" On all the run's validation windows that adds {write_part(cost)}."
        return said
    if found.verdict == "covered":
        return f"{valid} is covered: calibrating on {there}."
    return f"Whether {valid} is covered is not sure: {there}."


def write_advice(advice: CalibrationAdvice) -> list[str]:
    """The sentences that follow from what was measured."""
    names = name_texts(advice)
    said = []
    if advice.windows is not None:
        said += [write_windows(advice.windows), write_of_run(advice, advice.windows)]
    if advice.stability is not None:
        said.append(write_stability(advice.stability))
    if advice.spread is not None:
        part = write_part(advice.spread)
        said.append(f"Another draw of as many windows changes the damage by up to {part}.")
    said += [write_domain(found, advice, names) for found in advice.domains]
    if not advice.domains:
        said.append("No other text was tried: --calib-also SPEC tells which texts are not covered.")
    return said


def write_how(advice: CalibrationAdvice) -> str:
    """How it was searched and measured."""
    windows = sum(column.windows for column in advice.columns if column.of_run)
    said = f"Searched {advice.search}, on every window that is named"
    if advice.search != advice.run_search:
        said += f"; the run's own search is {advice.run_search}"
    if advice.run_search == FAST and advice.fast_tokens is not None:
        said += f". A run's fast search reads at most {advice.fast_tokens:,} tokens of its windows"
    return f"{said}. Measured on {windows:,} of the run's validation windows, paired."


def curve_rows(advice: CalibrationAdvice) -> Rows:
    """A row a calibration on the run's calibration text, fewest windows first."""
    of_text = ("text", "both")
    shown = [each for each in advice.calibrations if each.role not in of_text]
    return [_row(each, name_texts(advice)) for each in sorted(shown, key=lambda c: c.windows)]


def _row(each: Calibrated, names: Mapping[str, str]) -> dict[str, str]:
    return {
        "name": name_calibration(each, names),
        "windows": write_count(each.windows),
        "tokens": write_count(each.tokens),
        "kl": write_bounded(each.kl[0], each.kl[1:], ".5f"),
        "gain": "" if each.role == "run" else _write_gain_cell(each.gain),
        "ppl": write_number(each.ppl, ".3f"),
        "delta": write_bounded(each.delta_ppl[0], each.delta_ppl[1:], "+.3f"),
    }


def _write_gain_cell(gain: Bounded) -> str:
    return write_bounded(gain[0], gain[1:], "+.1%")


def pair_rows(advice: CalibrationAdvice) -> Rows:
    """A row a pair of calibrations and width."""
    return [row for pair in advice.pairs for row in _pair_rows(pair)]


def _pair_rows(pair: Beside) -> Rows:
    rows = []
    for number, found in enumerate(pair.agreements):
        kinds = [f"{g.kind} {g.equal}/{g.of}" for g in found.groups]
        clips = [*found.clips[:2], sum(found.clips[2:])] if found.clips else []
        measured = number == 0
        rows.append(
            {
                "pair": name_pair(pair),
                "bits": str(found.bits),
                "equal": f"{found.equal}/{found.of}",
                "kinds": join_words(kinds),
                "clips": ", ".join(map(write_part, clips)),
                "same": str(found.equal),
                "of": str(found.of),
                **dict(zip(CLIPS, map(write_part, clips), strict=False)),
                "share": _write_share_cell(pair.share) if measured else "",
                "difference": _write_gain_cell(pair.difference) if measured else "",
            }
        )
    return rows


def name_pair(pair: Beside) -> str:
    """Two calibrations beside each other."""
    return join_words(["the run's own" if n == "run" else n for n in (pair.one, pair.other)])


def _write_share_cell(share: Bounded) -> str:
    return write_bounded(share[0], share[1:], ".1%")


def matrix_columns(advice: CalibrationAdvice) -> dict[str, str]:
    """The heads of the table of texts: the calibration, then a validation text each."""
    names = name_texts(advice)
    heads = {"name": "Calibrated on"}
    return heads | {column.text: names[column.text] for column in advice.columns}


def split_matrix(advice: CalibrationAdvice) -> dict[str, dict[str, str]]:
    """What a cell of that table holds, in columns of their own: key -> heading, by text."""
    names = name_texts(advice)
    return {
        column.text: {
            f"kl of {column.text}": f"{names[column.text]}: KL",
            f"gain of {column.text}": f"{names[column.text]}: gives back",
        }
        for column in advice.columns
    }


def matrix_rows(advice: CalibrationAdvice) -> Rows:
    """A row a calibration text: KL on each validation text, and what it gives back there."""
    names = name_texts(advice)
    rows = []
    for each in list_texts(advice):
        row = {"name": name_calibration(each, names)}
        for cell in each.cells:
            kl = write_bounded(cell.kl[0], cell.kl[1:], ".5f")
            gain = "" if each.role == "run" else _write_gain_cell(cell.gain)
            row[cell.text] = f"{kl}; {gain}" if gain else kl
            row |= {f"kl of {cell.text}": kl, f"gain of {cell.text}": gain}
        rows.append(row)
    return rows


def list_texts(advice: CalibrationAdvice) -> Sequence[Calibrated]:
    """The calibrations that the table of texts is of."""
    return [each for each in advice.calibrations if each.role in ("run", "text", "both")]
