"""Where the damage is in a run's text: its windows and its worst tokens, as they are asked for.

A token table may hold millions of rows: it is read a row group at a time, and of its columns those
alone that a question is about.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

WORST_TOKENS = 100
MODELS = ("uniform", "mixed")
MEASURES = ("kl", "delta_nll")
# Which tokens: all; those whose likeliest next token the chosen model changes; of those that either
# model changes, the ones that mixed gives back, leaves, or is alone in changing; those whose KL is
# larger in mixed than in uniform.
WHICH = ("all", "changed", "repaired", "still", "broken", "worse")
COLUMNS = [
    "window",
    "position",
    "text",
    "nll_reference",
    *(f"{name}_{model}" for model in MODELS for name in ("nll", "kl", "agree")),
]
# A token's text is shown with these for what would not be seen, and may be asked for with them.
SIGNS = {"⏎": "\n", "⇥": "\t", "·": " "}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class TokenQuestion:
    """What is asked of a text. model: of MODELS, whose damage is meant; measure: of MEASURES, what
    is summed and sorted by; which: of WHICH; text: tokens that a match lies in, capitals as small
    letters, empty for any; above: the least of the measure."""

    model: str = MODELS[0]
    measure: str = MEASURES[0]
    which: str = WHICH[0]
    text: str = ""
    above: float | None = None

    @property
    def is_filter(self) -> bool:
        """Whether it leaves any token out."""
        return self.which != WHICH[0] or self.text != "" or self.above is not None


@dataclass(frozen=True)
class TokenIndex:
    """The answer: windows and tokens, the worst first.

    windows: rows of window, kl, delta_nll, changed (share of its tokens) and found (its tokens that
    were asked for); where that leaves any out, the windows with such tokens. tokens: the worst of
    those that were asked for, rows of window, position, text, kl, delta_nll (of the model), and
    kl_uniform, kl_mixed. found: how many were asked for. counts: WHICH -> tokens, with `scored`, of
    the whole text; without what takes the mixed model where it was not measured.
    """

    windows: Sequence[Row]
    tokens: Sequence[Row]
    found: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def has_mixed(self) -> bool:
        """Whether the mixed model was measured."""
        return "still" in self.counts

    @property
    def nbytes(self) -> int:
        """About what it takes in memory."""
        return 500 * (len(self.windows) + len(self.tokens))


@dataclass(frozen=True)
class _Scores:
    """Columns of some tokens, as arrays; NaN and False where a model has no score. kl, nll and
    changed by model."""

    reference: np.ndarray
    nll: Mapping[str, np.ndarray]
    kl: Mapping[str, np.ndarray]
    changed: Mapping[str, np.ndarray]

    @staticmethod
    def of(table: pa.Table) -> "_Scores":
        def changed(model: str) -> np.ndarray:
            return ~pc.fill_null(table[f"agree_{model}"], True).to_numpy()

        return _Scores(
            reference=table["nll_reference"].to_numpy(),
            nll={model: table[f"nll_{model}"].to_numpy() for model in MODELS},
            kl={model: table[f"kl_{model}"].to_numpy() for model in MODELS},
            changed={model: changed(model) for model in MODELS},
        )

    def measure(self, model: str, name: str) -> np.ndarray:
        return self.kl[model] if name == "kl" else self.nll[model] - self.reference

    def which(self, kind: str, model: str) -> np.ndarray:
        """The tokens of one of WHICH."""
        uniform, mixed = (self.changed[name] for name in MODELS)
        # Comparisons with NaN are False: what mixed has no score of is none of its tokens.
        known = self.kl["mixed"] >= 0
        match kind:
            case "changed":
                return self.changed[model]
            case "repaired":
                return uniform & ~mixed & known
            case "still":
                return uniform & mixed
            case "broken":
                return ~uniform & mixed
            case "worse":
                return self.kl["mixed"] > self.kl["uniform"]
        return np.ones(len(self.reference), dtype=bool)


def find_tokens(table: pa.Table, question: TokenQuestion, hits: np.ndarray | None) -> np.ndarray:
    """Which rows of a token table are asked for. hits: the rows that the question's text lies in;
    None where any will do."""
    scores = _Scores.of(table)
    value = scores.measure(question.model, question.measure)
    found = ~np.isnan(value) & scores.which(question.which, question.model)
    if question.above is not None:
        found &= value >= question.above
    return found if hits is None else found & hits


def find_text(table: pa.Table, text: str) -> np.ndarray:
    """The rows that a match of `text` lies in or reaches into; it may go over several tokens of a
    window, and capitals of ASCII are as small letters. table: of window and text."""
    for sign, meant in SIGNS.items():
        text = text.replace(sign, meant)
    tokens = pc.fill_null(table["text"], "").cast(pa.large_string()).combine_chunks()
    if not text or not len(tokens):
        return np.zeros(len(tokens), dtype=bool)
    offsets = np.frombuffer(tokens.buffers()[1], np.int64)[tokens.offset :][: len(tokens) + 1]
    whole = bytes(tokens.buffers()[2] or b"")
    needle = text.encode(errors="surrogateescape").lower()
    # A look ahead finds those that overlap too.
    matches = re.finditer(b"(?=%s)" % re.escape(needle), whole.lower())
    starts = np.fromiter((match.start() for match in matches), np.int64)
    marks = np.zeros(len(tokens) + 1, dtype=np.int64)
    if len(starts):
        first = np.searchsorted(offsets, starts, "right") - 1
        last = np.searchsorted(offsets, starts + len(needle) - 1, "right") - 1
        window = table["window"].to_numpy()
        inside = window[first] == window[np.minimum(last, len(tokens) - 1)]
        np.add.at(marks, first[inside], 1)
        np.add.at(marks, last[inside] + 1, -1)
    return (marks.cumsum()[:-1] > 0) & (np.diff(offsets) > 0)


def index_tokens(file: pq.ParquetFile, question: TokenQuestion | None = None) -> TokenIndex:
    """Windows and worst tokens of a token table; without a question, of the uniform model's KL."""
    asked = question or TokenQuestion()
    hits = find_text(file.read(["window", "text"]), asked.text) if asked.text else None
    sums: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(5))
    counts: dict[str, int] = defaultdict(int)
    worst: list[tuple[float, Row]] = []
    begin = 0
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=COLUMNS)
        here = None if hits is None else hits[begin : begin + len(table)]
        begin += len(table)
        scores, found = _Scores.of(table), find_tokens(table, asked, here)
        _add_windows(sums, table["window"].to_numpy(), scores, found, asked.model)
        for name, count in _count(scores).items():
            counts[name] += count
        worst += _list_worst(table, scores, found, asked)
        worst = sorted(worst, key=lambda each: -each[0])[:WORST_TOKENS]
    return TokenIndex(
        _list_windows(sums, asked),
        [row for _, row in worst],
        int(sum(row[4] for row in sums.values())),
        dict(counts),
    )


def _add_windows(
    sums: dict[int, np.ndarray],
    window: np.ndarray,
    scores: _Scores,
    found: np.ndarray,
    model: str,
) -> None:
    """Add the tokens, KL, ΔNLL, changes and finds of a row group to those of their windows."""
    scored = ~np.isnan(scores.kl[model])
    numbers, owners = np.unique(window[scored], return_inverse=True)
    parts = [
        None,
        scores.kl[model][scored],
        scores.measure(model, "delta_nll")[scored],
        scores.changed[model][scored],
        found[scored],
    ]
    totals = [np.bincount(owners, part) for part in parts]
    for number, *added in zip(numbers.tolist(), *totals, strict=True):
        sums[number] += added


def _count(scores: _Scores) -> dict[str, int]:
    """How many tokens are of each kind, as far as it is known."""
    counts = {"scored": int((~np.isnan(scores.kl["uniform"])).sum())}
    counts["uniform"] = int(scores.changed["uniform"].sum())
    if not np.isnan(scores.kl["mixed"]).all():
        counts["mixed"] = int(scores.changed["mixed"].sum())
        for kind in WHICH[2:]:
            counts[kind] = int(scores.which(kind, "mixed").sum())
    return counts


def _list_worst(
    table: pa.Table, scores: _Scores, found: np.ndarray, question: TokenQuestion
) -> list[tuple[float, Row]]:
    """The worst tokens of a row group, each with what they are sorted by."""
    order = scores.measure(question.model, question.measure)
    if question.which == "worse":
        order = scores.kl["mixed"] - scores.kl["uniform"]
    indices = np.flatnonzero(found)
    indices = indices[np.argsort(-order[indices], kind="stable")[:WORST_TOKENS]]
    delta = scores.measure(question.model, "delta_nll")
    rows = table.select(["window", "position", "text"]).take(indices).to_pylist()
    return [
        (
            float(order[index]),
            {
                **row,
                "kl": float(scores.kl[question.model][index]),
                "delta_nll": float(delta[index]),
                **{f"kl_{model}": _known(scores.kl[model][index]) for model in MODELS},
            },
        )
        for row, index in zip(rows, indices, strict=True)
    ]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _list_windows(sums: Mapping[int, np.ndarray], question: TokenQuestion) -> list[Row]:
    windows = [
        {
            "window": number,
            "kl": float(kl / count),
            "delta_nll": float(delta / count),
            "changed": float(changed / count),
            "found": int(found),
        }
        for number, (count, kl, delta, changed, found) in sums.items()
        if found or not question.is_filter
    ]
    return sorted(windows, key=lambda row: -row[question.measure])
