"""Every number of a run by text: one computation for pages, the terminal, reports and the gate.

Intervals are the gate's (`findings.py`). Of several texts each lower bound is a little lower, so
that the worst of them is not thought bad by chance: the gate decides by the worst.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from awqscope.diagnose.gate.findings import (
    Finding,
    Findings,
    Measured,
    Missing,
    Slice,
    find_recovered,
    judge_windows,
)
from awqscope.diagnose.runs.record import MIXED, REFERENCE, UNIFORM
from awqscope.diagnose.statistics.bootstrap import Floats, perplexity

# What a policy can hold every text to; in a gate's evidence their names begin so.
BY_TEXT, HELD_BY_TEXT = "slice_", ("ppl_ratio", "kl")

# In JSON, every number of a model, by text and of the whole; `ln_ppl_ratio` is made of the ratio.
IN_HEADLINE = ("ppl_ratio", "delta_p", "rms_delta_p")
LN_RATIO = "ln_ppl_ratio"

Numbers = Mapping[str, Finding | Missing]


@dataclass(frozen=True)
class TextNumbers:
    """What was measured on one text, or on all of them.

    text: its SPEC; of all, their names. first, windows: where its windows begin, and how many they
    are; tokens: scored in them. ppl: perplexity by model, the reference's too. models: what
    `judge_windows` says of each model that was measured. recovered: the share of uniform's KL that
    mixed gives back; None where either was not measured.
    """

    text: str
    first: int
    windows: int
    tokens: int
    ppl: Mapping[str, float]
    models: Mapping[str, Numbers]
    recovered: Finding | Missing | None = None

    def find(self, model: str, number: str) -> Finding | None:
        """A number of a model; None where it is not known."""
        found = self.models.get(model, {}).get(number)
        return found if isinstance(found, Finding) else None

    def to_json(self) -> dict[str, Any]:
        """For scripts: each number by model as [value, low, high], a bound null where too few
        windows bound it, and a number null where it is none."""
        names = list(dict.fromkeys(name for each in self.models.values() for name in each))
        return {
            "text": self.text,
            "first_window": self.first,
            "windows": self.windows,
            "scored_tokens": self.tokens,
            "ppl": {model: _finite(ppl) for model, ppl in self.ppl.items()},
            **self.pick(names),
            "recovered": _bounded(self.recovered),
        }

    def of_model(self, model: str) -> dict[str, Any]:
        """The same of one model alone, without what it takes another for."""
        picked = self.pick(self.models[model])
        about = {"text": self.text, "windows": self.windows, "scored_tokens": self.tokens}
        return about | {name: found[model] for name, found in picked.items()}

    def pick(self, names: Iterable[str]) -> dict[str, Any]:
        """Some numbers by model, as in JSON; the logarithm of the PPL ratio after the ratio."""
        found = {}
        for name in names:
            found[name] = {model: _bounded(each[name]) for model, each in self.models.items()}
            if name == "ppl_ratio":
                found[LN_RATIO] = {model: _log(ends) for model, ends in found[name].items()}
        return found


@dataclass(frozen=True)
class RunNumbers:
    """The numbers of a run: of all its text, and of each text (of a single one that is the same).
    missing: models of which there are none, and why."""

    whole: TextNumbers
    texts: tuple[TextNumbers, ...]
    missing: Mapping[str, Missing]

    @property
    def models(self) -> tuple[str, ...]:
        """The models that were measured, besides the reference."""
        return tuple(self.whole.models)

    @property
    def nbytes(self) -> int:
        """About what it takes in memory."""
        return 5000 * (1 + len(self.texts))

    def to_json(self) -> dict[str, Any]:
        """For scripts: what a headline lacks of the whole text, and every number of each text."""
        return {**self.whole.pick(IN_HEADLINE), "texts": [part.to_json() for part in self.texts]}

    def judge(self, model: str) -> Findings:
        """One model's numbers as a gate takes them: those of all its text, and of each text those
        that a policy can hold each to. KeyError for a model that was not measured."""
        found: dict[str, tuple[Finding, ...] | Missing] = {
            name: number if isinstance(number, Missing) else (number,)
            for name, number in self.whole.models[model].items()
        }
        for name in HELD_BY_TEXT:
            each = tuple(_of_text(part, part.models[model][name]) for part in self.texts)
            found[f"{BY_TEXT}{name}"] = each
        return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _bounded(found: Finding | Missing | None) -> list[float | None] | None:
    if not isinstance(found, Finding):
        return None
    return [_finite(end) for end in (found.value, found.low, found.high)]


def _log(ends: list[float | None] | None) -> list[float | None] | None:
    return ends and [None if end is None or end <= 0 else math.log(end) for end in ends]


def _of_text(part: TextNumbers, number: Finding | Missing) -> Finding:
    """A text's number with its name. One that is none is not missing altogether: another text that
    surely fails must fail all the same."""
    if isinstance(number, Missing):
        number = Finding(math.nan, -math.inf, math.inf, part.tokens)
    return replace(number, of=part.text)


def number_texts(
    scores: Mapping[str, Measured | Missing], slices: Sequence[Slice], text: str, seed: int
) -> RunNumbers:
    """The numbers of models on a run's texts. scores: by model, on all windows; slices: the texts,
    one after another; text: what all of them are called."""
    known = {model: found for model, found in scores.items() if isinstance(found, Measured)}
    missing = {model: found for model, found in scores.items() if isinstance(found, Missing)}
    count = sum(part.windows for part in slices)
    if len(slices) == 1:
        (part,) = slices
        whole = _number(known, part, seed, 1)
        return RunNumbers(whole, (whole,), missing)
    parts = tuple(_number(known, part, seed, len(slices)) for part in slices)
    return RunNumbers(_number(known, Slice(text, 0, count), seed, 1), parts, missing)


def _number(known: Mapping[str, Measured], part: Slice, seed: int, rivals: int) -> TextNumbers:
    here = {model: scores.of(part) for model, scores in known.items()}
    recovered = None
    if MIXED in here and UNIFORM in here:
        recovered = find_recovered(here[MIXED], here[UNIFORM], seed)
    return TextNumbers(
        part.text,
        part.first,
        part.windows,
        tokens=part.windows * max((s.kl.shape[1] for s in here.values()), default=0),
        ppl=_perplexities(here),
        models={model: judge_windows(s, seed, rivals=rivals) for model, s in here.items()},
        recovered=recovered,
    )


def _perplexities(here: Mapping[str, Measured]) -> dict[str, float]:
    found = {model: s.nll for model, s in here.items()}
    if here:
        found = {REFERENCE: next(iter(here.values())).nll_reference, **found}
    return {model: _exp_mean(nll) for model, nll in found.items()}


def _exp_mean(nll: Floats) -> float:
    try:
        return perplexity(nll)
    except OverflowError:
        return math.inf


def find_worst(texts: Iterable[TextNumbers], model: str, number: str = "kl") -> TextNumbers | None:
    """The text with the largest number of a model, the first of equal ones; None where it is known
    of none."""
    known = [(part, found) for part in texts if (found := part.find(model, number)) is not None]
    return max(known, key=lambda each: each[1].value)[0] if known else None
