"""Two models side by side: a model of one run and a model of another, or of the same.

Where both were measured on the same tokens their differences are paired by token; whether they are
the same model is told by what they are made of, and by what they make of every token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from awqscope.diagnose.gate.evidence import choose_model
from awqscope.diagnose.gate.findings import (
    Finding,
    Measured,
    Missing,
    change_measured,
    read_measured,
)
from awqscope.diagnose.gate.shares import uniform_widths
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import CANDIDATE, MIXED, UNIFORM, AnyRecord, Record
from awqscope.mixedprec.recipes.recipe import load_recipe
from awqscope.mixedprec.scheme import Width

# Two ways to compute one model differ by rounding: so much in the NLL and KL of a token, in nats.
# A width changed in a single linear moves tokens by a hundred times as much and more.
ROUNDING = 5e-3
# What of a run's options makes its models; the others say how they are measured.
MADE_BY = (
    "bits",
    "rescue_bits",
    "group_size",
    "symmetric",
    "search",
    "keep_fp16",
    "calib_windows",
    "calib_seq_len",
    "dtype",
    "seed",
)
SCORES = ("nll_reference", "nll", "kl", "agree")


@dataclass(frozen=True)
class Side:
    """One model of one run. record: the run's. model: mixed, uniform, or the candidate of a
    comparison."""

    run: RunDirectory
    record: AnyRecord
    model: str

    @property
    def stored(self) -> str:
        """The name by which the run's tables have it."""
        return choose_model(self.record, self.model)


@dataclass(frozen=True)
class Pair:
    """B beside A. same_tokens: whether both were measured on the same tokens, None where that is
    not known. changes: B − A of `ppl`, `kl` and `top1_agreement`, paired by token, or why there is
    none. same_model: how it is known that the two are one model; empty where they are not."""

    same_tokens: bool | None
    changes: Mapping[str, Finding | Missing]
    same_model: str = ""

    @property
    def nbytes(self) -> int:
        """About what it takes in memory."""
        return 2000


def list_models(record: AnyRecord) -> tuple[str, ...]:
    """The models that a run measured; the first is the one that is compared by default."""
    if record.headline is None or record.headline.kl.mixed is None:
        return (record.quantized,)
    return (MIXED, UNIFORM)


def choose_side(run: RunDirectory, record: AnyRecord, wanted: str) -> Side:
    """The model `wanted` of a run, or its first of `list_models` where it has no such model."""
    models = list_models(record)
    return Side(run, record, wanted if wanted in models else models[0])


def read_pair(a: Side, b: Side) -> Pair:
    """B compared with A. InputError for a token table that is damaged."""
    tables = [_read_tokens(side) for side in (a, b)]
    if tables[0] is None or tables[1] is None:
        lacking = (a, b)[tables.index(None)].run.path
        same = _compare_hashes(a.record, b.record)
        missing = Missing(f"{lacking} has no tokens.parquet")
        return Pair(same, _all_missing(missing), _made_alike(a, b))
    same = _compare_hashes(a.record, b.record)
    if same is None:
        same = tables[0]["token"].equals(tables[1]["token"])
    if not same:
        missing = Missing("they were measured on different tokens")
        return Pair(False, _all_missing(missing), _made_alike(a, b))
    scores = [_read_scores(side, table) for side, table in zip((a, b), tables, strict=True)]
    first, second = scores
    if isinstance(first, Missing) or isinstance(second, Missing):
        why = [each.reason for each in scores if isinstance(each, Missing)]
        return Pair(True, _all_missing(Missing(why[0])), _made_alike(a, b))
    changes = change_measured(second, first, a.record.spec.seed)
    return Pair(True, changes, _find_same(a, b, tables))


def _all_missing(why: Missing) -> dict[str, Finding | Missing]:
    return dict.fromkeys(("ppl", "kl", "top1_agreement"), why)


def _compare_hashes(a: AnyRecord, b: AnyRecord) -> bool | None:
    """Whether the tokens are the same, by their hashes; None where a run of an earlier version has
    none."""
    mine, theirs = a.ppl_definition, b.ppl_definition
    hashes = mine.tokens_sha256, theirs.tokens_sha256
    shapes = [(each.windows, each.seq_len) for each in (mine, theirs)]
    if shapes[0] != shapes[1]:
        return False
    return None if None in hashes else hashes[0] == hashes[1]


def _columns(side: Side) -> list[str]:
    return [name if name == SCORES[0] else f"{name}_{side.stored}" for name in SCORES]


def _read_tokens(side: Side) -> Any:
    """The token table of a side, None where the run has none."""
    if not (side.run.path / "tokens.parquet").exists():
        return None
    return side.run.read_table("tokens", ["token", *_columns(side)])


def _read_scores(side: Side, table: Any) -> Measured | Missing:
    definition = side.record.ppl_definition
    windows, length = definition.windows, definition.seq_len
    if table.num_rows != windows * length:
        return Missing(f"the token table of {side.run.path} is not its own")
    return read_measured(table, side.stored, windows, length)


def _find_same(a: Side, b: Side, tables: Sequence[Any]) -> str:
    """How it is known that two models measured on the same tokens are one; empty where they are
    not."""
    far, alike = 0.0, True
    for mine, theirs in zip(_columns(a), _columns(b), strict=True):
        first, second = tables[0][mine], tables[1][theirs]
        if first.equals(second):
            continue
        alike = False
        if mine.startswith("agree"):
            # At a tie rounding decides which token is likeliest.
            continue
        values = [np.asarray(each.to_numpy(), dtype=np.float64) for each in (first, second)]
        difference = np.abs(values[1] - values[0])
        far = max(far, float(np.nanmax(difference)))
    count = len(tables[0]) - a.record.ppl_definition.windows
    if alike:
        return f"both score each of {count:,} tokens alike, to the last bit"
    if far >= ROUNDING:
        return ""
    made = _made_alike(a, b) or _written_alike(a, b)
    return f"{made}, and no token's scores differ by more than {far:.1g} nats" if made else ""


def _made_alike(a: Side, b: Side) -> str:
    """How it is known that two models are made of the same things; empty where they are not, or
    where that is not known."""
    if a.run.path.resolve() == b.run.path.resolve() and a.model == b.model:
        return "they are one model of one run"
    made = [_list_parts(side) for side in (a, b)]
    if None in made or made[0] != made[1]:
        return ""
    if a.model == b.model == CANDIDATE:
        return "their files have the same hashes"
    return "they are made of the same weights and calibration by the same recipe"


def _list_parts(side: Side) -> Any:
    """All that a model is made of; None where that is not known."""
    record = side.record
    weights = hash_source(record)
    if not isinstance(record, Record):
        return CANDIDATE, weights, tuple(sorted(record.candidate.hashes.values()))
    calibration, widths = record.calibration.tokens_sha256, read_widths(side)
    if calibration is None or widths is None:
        return None
    spec = {key: getattr(record.spec, key) for key in MADE_BY}
    if side.model == UNIFORM:
        # What nothing is promoted to makes no difference.
        spec.pop("rescue_bits")
    with_what = record.versions, record.device
    return weights, calibration, widths, spec, with_what


def hash_source(record: AnyRecord) -> tuple[str, ...]:
    """What tells a run's reference from others, whatever it is called and wherever it is."""
    return tuple(sorted(record.source.hashes.values()))


def read_widths(side: Side) -> dict[str, Width] | None:
    """The width of each unit; None where the run does not say."""
    if not isinstance(side.record, Record):
        path = side.run.path / "units.parquet"
        if not path.exists():
            return None
        rows = side.run.read_table("units", ["unit", "bits"]).to_pylist()
        widths = {row["unit"]: row["bits"] for row in rows}
        # A unit with two widths has two rows, and no recipe can say that.
        return widths if len(widths) == len(rows) else None
    path = side.run.path / "recipe.json"
    if not path.exists():
        return None
    widths = load_recipe(path).widths
    if side.model == MIXED:
        return dict(widths)
    return dict(uniform_widths(widths, side.record.spec))


def _written_alike(a: Side, b: Side) -> str:
    """Whether one is a candidate of the other's reference and widths: its checkpoint, by what can
    be told; empty where it is not."""
    if (a.model == CANDIDATE) == (b.model == CANDIDATE):
        return ""
    alike = hash_source(a.record) == hash_source(b.record) and read_widths(a) == read_widths(b)
    written, other = ("A", "B") if a.model == CANDIDATE else ("B", "A")
    model = b.model if a.model == CANDIDATE else a.model
    return f"{written} is the checkpoint of {other}'s {model} model" if alike else ""
