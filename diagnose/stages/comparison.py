"""A comparison: a checkpoint that somebody else made, block by block against its reference.

Its result is a run directory with the candidate in the uniform model's place. Stages that need AWQ
searches of the run's own (those for units, recipe, checkpoint and proof) are skipped.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from awqscope.diagnose.entries import source as entries
from awqscope.diagnose.entries.headline import ComparedHeadline
from awqscope.diagnose.entries.plan import MemoryPlan
from awqscope.diagnose.entries.served_type import Serving, describe_type
from awqscope.diagnose.inputs.corpora import (
    Corpus,
    cut_slices,
    has_tokenizer,
    load_corpus,
    load_tokenizer,
)
from awqscope.diagnose.inputs.load import (
    begin,
    check_tokens,
    choose_length,
    describe_source,
    describe_text,
    note_weights,
)
from awqscope.diagnose.inputs.sizes import reference_bytes
from awqscope.diagnose.inputs.sources import check_specs
from awqscope.diagnose.inside.weights import COLUMNS
from awqscope.diagnose.machine.precision import settle_precision
from awqscope.diagnose.machine.tasks import HERE, Placement
from awqscope.diagnose.passes.setting import Setting
from awqscope.diagnose.passes.views import list_sampled
from awqscope.diagnose.plan.room import plan_work
from awqscope.diagnose.runs.directory import STAGES, OnProgress, RunDirectory
from awqscope.diagnose.runs.record import CANDIDATE, Comparison
from awqscope.diagnose.runs.spec import CompareSpec
from awqscope.diagnose.runs.tables import ACTIVATIONS, UNITS, WEIGHTS
from awqscope.diagnose.stages.pipeline import OnNote, OnPlan, Work, conduct, foresee
from awqscope.diagnose.stages.sweep import Sweep, list_numbers, sweep_views
from awqscope.diagnose.sweep.branches import REFERENCE, view_name
from awqscope.diagnose.sweep.whole_blocks import CandidateSweep, build_candidate_sweep
from awqscope.mixedprec.checkpoints.writer import examine_serving
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.table import list_units
from awqscope.mixedprec.foreign.activations import WEIGHTS_ALONE
from awqscope.mixedprec.foreign.candidate import Candidate
from awqscope.mixedprec.foreign.gguf import GgufCandidate
from awqscope.mixedprec.foreign.opening import open_beside
from awqscope.mixedprec.foreign.padding import write_padding
from awqscope.mixedprec.models.forward import count_unit_weights
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.served import name_dtype, read_dtype
from awqscope.mixedprec.models.source import SourceModel

SKIPPED = "the checkpoint was made elsewhere: there are no searches to choose widths from"
FOR_LLAMA_CPP = "A GGUF file is for llama.cpp and its kin, whose rules are not known here"
# Runs of a weight's inputs whose errors are ranked, whatever groups the candidate has.
WEIGHT_GROUP = 128


@dataclass(frozen=True)
class Compared:
    """What a comparison works on, loaded and checked. windows: those of the texts `valid` one after
    another, `slices` of each."""

    model: SourceModel
    candidate: Candidate
    tokenizer: PreTrainedTokenizerBase
    valid: tuple[Corpus, ...]
    windows: Tensor
    slices: tuple[int, ...]
    sweep: CandidateSweep


@dataclass(frozen=True)
class Reference:
    """What comparisons with one reference have in common: the model, and the texts `valid` cut into
    windows of `length` tokens, `slices` of each."""

    model: SourceModel
    tokenizer: PreTrainedTokenizerBase
    valid: tuple[Corpus, ...]
    windows: Tensor
    slices: tuple[int, ...]
    length: int


ReadReference = Callable[[CompareSpec], Reference]


def load_reference(spec: CompareSpec) -> Reference:
    """Open the reference and cut the texts. InputError for what cannot be measured."""
    check_specs(spec.valid)
    model = open_model(spec.reference, trust_remote_code=spec.trust_remote_code)
    tokenizer = load_tokenizer(model.path, trust_remote_code=spec.trust_remote_code)
    valid = tuple(load_corpus(text) for text in spec.valid)
    length, _ = choose_length(model, spec.seq_len)
    parts = cut_slices(valid, tokenizer, length, spec.windows)
    windows = torch.cat(parts)
    check_tokens(model, windows)
    return Reference(model, tokenizer, valid, windows, tuple(map(len, parts)), length)


def share_reference() -> ReadReference:
    """`load_reference` for comparisons that differ in their candidate alone: the model is opened
    and the texts are cut once."""
    kept: dict[str, Reference] = {}

    def read(spec: CompareSpec) -> Reference:
        key = repr(spec.change(candidate=""))
        if key not in kept:
            kept.clear()
            kept[key] = load_reference(spec)
        return kept[key]

    return read


def load_compared(spec: CompareSpec, read_reference: ReadReference = load_reference) -> Compared:
    """Open both models and the text. InputError for anything that could not be compared."""
    found = read_reference(spec)
    model, valid, windows = found.model, found.valid, found.windows
    candidate = open_beside(spec.candidate, model)
    if has_tokenizer(candidate.path):
        theirs = load_tokenizer(candidate.path, trust_remote_code=spec.trust_remote_code)
        alike = shares_tokens(found.tokenizer, theirs)
        # How a text is split is for llama.cpp to say, where a file is one for it.
        if alike and not isinstance(candidate, GgufCandidate):
            cut = cut_slices(valid, theirs, found.length, spec.windows)
            alike = torch.equal(torch.cat(cut), windows)
        if not alike:
            raise InputError(
                f"the tokenizer of {spec.candidate} reads the text as other tokens than that of "
                f"{spec.reference}",
                "compare a checkpoint with the model it was made from; if it is, put that one's "
                "tokenizer files in the place of its own",
            )
    sweep = build_candidate_sweep(model, candidate)
    return Compared(model, candidate, found.tokenizer, valid, windows, found.slices, sweep)


def shares_tokens(ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase) -> bool:
    """Whether a candidate's tokenizer has the reference's tokens, each with its id, but for those
    that were added to it: tools add some of their own, such as one for padding, transformers adds
    some as it reads a GGUF file, and llama.cpp's converter rewrites special ones."""
    special = ours.get_added_vocab()
    found = theirs.get_vocab()
    return all(found.get(t) == i for t, i in ours.get_vocab().items() if t not in special)


def describe_candidate(candidate: Candidate, unit_weights: int | None = None) -> entries.Candidate:
    """The candidate, as it was found. unit_weights: weights of the linears of all blocks."""
    return entries.Candidate(
        path=candidate.name,
        format=candidate.method,
        bits={str(bits): count for bits, count in candidate.count_widths().items()},
        tokenizer=has_tokenizer(candidate.path),
        hashes=candidate.hash(),
        left_aside=list(candidate.aside),
        padding=candidate.padding,
        weights_alone=candidate.quantizes_inputs,
        unit_weights=unit_weights,
    )


def describe_serving(candidate: Candidate) -> Serving:
    """What servers make of the candidate; of a GGUF file, which is for others, nothing is known."""
    if isinstance(candidate, GgufCandidate):
        return Serving(notes=[FOR_LLAMA_CPP])
    return Serving(**examine_serving(candidate.catalogue, candidate).to_json())


def note_padding(candidate: Candidate) -> tuple[str, ...]:
    """A note, shown before a comparison, where the candidate's vocabulary was rounded up."""
    if not candidate.padding:
        return ()
    return (f"{candidate.path}: {write_padding(candidate.padding)}",)


def note_activations(candidate: Candidate) -> tuple[str, ...]:
    """A note, shown before a comparison, where the candidate's activations are quantized too."""
    return (f"{candidate.path}: {WEIGHTS_ALONE}",) if candidate.quantizes_inputs else ()


def prepare_comparison(spec: CompareSpec, read_reference: ReadReference = load_reference) -> Work:
    """The work of `awqscope compare`."""
    compared = load_compared(spec, read_reference)
    serving = describe_serving(compared.candidate)
    description = Comparison(
        **begin(spec.reference),
        kind="compare",
        spec=spec,
        source=describe_source(compared.model),
        candidate=describe_candidate(compared.candidate, count_unit_weights(compared.model)),
        serving=serving,
        ppl_definition=describe_text(compared.valid, compared.slices, compared.windows),
        headline=None,
    )
    measure = partial(compare_stage, spec, compared)
    plan = partial(
        plan_work,
        compared.model,
        compared.windows,
        ["sweep"],
        budget=spec.max_memory,
        most_windows=spec.chunk_windows,
        sweep=compared.sweep.branches,
        sampled=len(list_sampled(spec, compared.windows)),
        precision=spec.precision,
    )
    notes = (
        *note_weights(compared.model, compared.candidate),
        *note_padding(compared.candidate),
        *note_activations(compared.candidate),
    )
    return Work(description, {**dict.fromkeys(STAGES, SKIPPED), "sweep": measure}, plan, notes)


def run_comparison(
    spec: CompareSpec,
    out: Path,
    on_progress: OnProgress,
    placement: Placement = HERE,
    on_plan: OnPlan = lambda plan: None,
    on_note: OnNote = lambda note: None,
    read_reference: ReadReference = load_reference,
) -> RunDirectory:
    """Carry out `spec` in the directory `out`, continuing where an earlier process stopped.

    on_progress(stage, done, total). placement: where its tasks are carried out. on_plan: told the
    plan before it starts; on_note: before that, what a user should know of the inputs.
    read_reference: opens the reference. InputError for unusable input, another run in `out`, a
    process that already works on it, or a full disk.
    """
    check_specs(spec.valid)
    spec = settle_precision(spec, RunDirectory(out), placement)
    named = {
        "source": spec.reference,
        "candidate": spec.candidate,
        "ppl_definition": " or ".join(spec.valid),
    }
    prepare = partial(prepare_comparison, spec, read_reference)
    return conduct(spec, prepare, named, out, on_progress, placement, on_plan, on_note)


def plan_comparison(
    spec: CompareSpec,
    out: Path,
    placement: Placement = HERE,
    on_note: OnNote = lambda note: None,
    read_reference: ReadReference = load_reference,
) -> MemoryPlan:
    """The plan by which `run_comparison` would begin or continue in `out`. on_note: told what a
    user should know of the inputs. InputError for unusable input, and for another run in `out`."""
    check_specs(spec.valid)
    spec = settle_precision(spec, RunDirectory(out), placement)
    prepare = partial(prepare_comparison, spec, read_reference)
    return foresee(spec, prepare, out, placement, on_note)


def compare_stage(spec: CompareSpec, compared: Compared, at: Setting) -> None:
    """Measure every block of the candidate in its three views, and what differs outside of them;
    write blocks, activations, tokens, units and weights."""
    model, candidate, sweep, run = compared.model, compared.candidate, compared.sweep, at.run
    swept = sweep_views(spec, compared, at, sweep, weight_group)
    kinds = [kind.name for kind in model.family.units]
    apart = {(block, kind) for block in sweep.rebased for kind in kinds}
    run.write_table("activations", swept.activations.rows(apart), ACTIVATIONS)
    run.write_table("units", unit_rows(candidate), UNITS)
    run.write_table("weights", weight_rows(compared, swept), WEIGHTS)
    places = weigh_places(sweep.places, swept)
    sizes: dict[str, int] = {
        REFERENCE: reference_bytes(model),
        CANDIDATE: candidate.bytes,
    }
    isolated = swept.isolated_kl + sum(place.kl for place in places)
    headline = ComparedHeadline(**list_numbers(swept, CANDIDATE, sizes, isolated))
    kind = None
    if not isinstance(candidate, GgufCandidate):
        dtype = read_dtype(candidate.config) or model.dtype
        kind = describe_type(name_dtype(dtype), headline.find_largest())
    serving = run.read().serving or Serving(notes=[])
    run.update(headline=headline, places=places, serving=serving.changed(type=kind))


def weight_group(inputs: int) -> int:
    """Inputs of a weight group of a linear with `inputs` inputs."""
    return inputs if inputs % WEIGHT_GROUP else WEIGHT_GROUP


def weigh_places(places: tuple[str, ...], swept: Sweep) -> list[entries.Place]:
    """What each place outside the blocks costs."""
    return [
        entries.Place(
            place=place,
            **swept.surveys.damage(view_name("isolated", place)),
            restored_kl=swept.surveys.kl(view_name("restored", place)),
        )
        for place in places
    ]


def unit_rows(candidate: Candidate) -> list[dict[str, Any]]:
    """Rows of units.parquet: every unit at the width it was found at, or at each of several, with
    its bytes on disk. No KL: a unit cannot be swapped without its block."""
    rows = []
    for unit in list_units(candidate.family, candidate.blocks):
        sizes: Counter[int] = Counter()
        for linear in unit.linears:
            full = f"{candidate.prefix(unit.block)}.{linear}"
            sizes[candidate.width(full)] += candidate.linear_bytes(full)
        rows += [
            {
                "unit": unit.name,
                "block": unit.block,
                "kind": unit.kind.name,
                "bits": bits,
                "bytes": size,
            }
            for bits, size in sorted(sizes.items())
        ]
    return rows


def weight_rows(compared: Compared, swept: Sweep) -> list[dict[str, Any]]:
    """Rows of weights.parquet: the linears of blocks in which only linears' weights differ."""
    model, candidate = compared.model, compared.candidate
    return [
        {
            "block": unit.block,
            "unit": unit.name,
            "linear": linear,
            "bits": candidate.width(f"{model.prefix(unit.block)}.{linear}"),
            **{
                column: swept.weights[f"{unit.block}.{linear}.{column}"].tolist()
                for column in COLUMNS
            },
        }
        for unit in list_units(model.family, model.blocks)
        for linear in unit.linears
        if f"{unit.block}.{linear}.{COLUMNS[0]}" in swept.weights
    ]
