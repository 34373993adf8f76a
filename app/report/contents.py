"""What a report is made of, read from a finished run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awqscope.app.store import Store, UnknownRunError
from awqscope.app.words.offers import Offer, list_offers
from awqscope.app.words.predict import find_bits
from awqscope.app.words.verdict import UNKNOWN_FAULT
from awqscope.diagnose.gate.block_texts import BlockTexts
from awqscope.diagnose.gate.evidence import UNFINISHED
from awqscope.diagnose.gate.own import load_own
from awqscope.diagnose.gate.policy import Policy
from awqscope.diagnose.gate.texts import RunNumbers
from awqscope.diagnose.gate.verdict import GateVerdict, judge_run
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import AnyRecord
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.recipes.recipe import Recipe

PASSAGES = 8
BEFORE, AFTER = 40, 12

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Passage:
    """The text around a token that the quantized model spoils. rows: of tokens.parquet, in reading
    order; `at`: the token's place among them."""

    rows: Sequence[Row]
    at: int


@dataclass(frozen=True)
class Findings:
    """A finished run. Tables are rows as reports/README.md has them, empty where the run has none;
    recipe and proof are None there. spoiled: flagged block -> the tokens it moves most, worst
    first. release: the gate's verdict, or why it cannot judge the run. offers: what more bytes
    would buy. numbers, block_texts: by text; None where the run's tokens do not give them. bits:
    what a weight of the recipe's units takes, where that is known."""

    name: str
    record: AnyRecord
    blocks: Sequence[Row]
    units: Sequence[Row]
    groups: Sequence[Row]
    promotions: Sequence[Row]
    activations: Sequence[Row]
    recipe: Recipe | None
    proof: Mapping[str, Any] | None
    passages: Sequence[Passage]
    spoiled: Mapping[int, Sequence[Row]]
    release: GateVerdict | str
    offers: Sequence[Offer] = ()
    numbers: RunNumbers | None = None
    block_texts: BlockTexts | None = None
    bits: float | None = None


def read_findings(path: Path, policy: Policy | None = None) -> Findings:
    """What the run at `path` found, and whether it may be released by `policy`, by default the
    run's own or the default one. InputError where there is no run, or one that is unfinished,
    failed or damaged."""
    folder = path.resolve()
    RunDirectory(path).read()
    store = Store(folder.parent)
    try:
        run = store.summary(folder.name)
    except UnknownRunError as error:
        raise InputError(f"{path} is hidden", "give it a name without a dot before it") from error
    if run.record is None:
        raise InputError(run.error, run.remedy)
    if run.state == "failed":
        fault = run.record.error or UNKNOWN_FAULT
        first = f"{fault.remedy}; " if fault.remedy else ""
        go_on = RunDirectory(path).how_to_finish()
        raise InputError(f"{path} failed ({fault.message})", first + go_on)
    if run.state != "done":
        said = f"{path} is not finished ({UNFINISHED[run.state]})"
        raise InputError(said, RunDirectory(path).how_to_finish())
    try:
        return _read_tables(store, folder.name, run.record, policy)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"a file of {path} is damaged ({error})", "run it again elsewhere"
        ) from error


def _read_tables(store: Store, name: str, record: AnyRecord, policy: Policy | None) -> Findings:
    return Findings(
        name=name,
        record=record,
        blocks=store.table(name, "blocks"),
        units=store.table(name, "units"),
        groups=store.table(name, "groups"),
        promotions=store.table(name, "promotions"),
        activations=store.table(name, "activations"),
        recipe=store.recipe(name),
        proof=store.proof(name),
        passages=_read_passages(store, name),
        spoiled={block: store.block_tokens(name, block) for block in record.measured.flagged},
        release=_judge(store.find(name), policy),
        # The page is the same wherever the run is.
        offers=list_offers(record, store.find(name).path, name),
        numbers=_number(store, name),
        block_texts=store.block_texts(name),
        bits=find_bits(store.grouped_scores(name), store.recipe(name)),
    )


def _number(store: Store, name: str) -> RunNumbers | None:
    """Every number by text; a run that cannot be judged has none, and a report all the same."""
    try:
        return store.numbers(name)
    except InputError:
        return None


def _judge(run: RunDirectory, policy: Policy | None) -> GateVerdict | str:
    """The gate's verdict, or why there is none: a run of an earlier version can lack what it takes
    to be judged, and has a report all the same. InputError for a policy of its own that cannot be
    used."""
    wanted = load_own(run) if policy is None else policy
    try:
        return judge_run(run, wanted)
    except InputError as error:
        # The page is the same wherever the run is.
        return error.what.replace(str(run.path), run.path.name)


def _read_passages(store: Store, name: str) -> list[Passage]:
    index = store.token_index(name)
    found = []
    for token in choose_passages(index.tokens if index else []):
        rows = store.window(name, token["window"])
        first = max(0, token["position"] - BEFORE)
        here = rows[first : token["position"] + AFTER + 1]
        found.append(Passage(here, token["position"] - first))
    return found


def choose_passages(worst: Sequence[Row]) -> list[Row]:
    """The tokens to show in their text: those of `worst` (window, position, worst first) whose
    passages do not overlap, PASSAGES at most."""
    chosen: list[Row] = []
    for row in worst:
        apart = all(
            row["window"] != other["window"]
            or abs(row["position"] - other["position"]) > BEFORE + AFTER
            for other in chosen
        )
        if apart and len(chosen) < PASSAGES:
            chosen.append(row)
    return chosen
