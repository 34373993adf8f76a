"""`awqscope alternatives`: the alternatives to a run's uniform model in one table.

Each is measured whole on the run's own windows, so that every difference is paired by token. What
was measured once stays in the answer: asked for more, only what is missing is made and measured.
"""

from collections.abc import Collection, Mapping
from functools import partial

import numpy as np

from awqscope.diagnose.inputs.sizes import reference_bytes
from awqscope.diagnose.runs.directory import OnProgress
from awqscope.diagnose.runs.record import MIXED, UNIFORM
from awqscope.diagnose.statistics.bootstrap import Resampler, perplexity
from awqscope.diagnose.studies.alternatives.answer import (
    ADDED,
    Alternative,
    Alternatives,
    ByWindow,
    weigh,
)
from awqscope.diagnose.studies.alternatives.asked import (
    check_added,
    keep_current,
    read_kept,
    stamp_method,
    study_of,
)
from awqscope.diagnose.studies.alternatives.bench import Bench, Subject
from awqscope.diagnose.studies.alternatives.choosing import MIXES, Choice, choose_methods
from awqscope.diagnose.studies.alternatives.making import (
    Workplace,
    folder_of,
    list_model_linears,
    make,
    open_added,
)
from awqscope.diagnose.studies.alternatives.methods import Method, Rounded, Searched
from awqscope.diagnose.studies.alternatives.rounding import UnusableLibraryError
from awqscope.diagnose.trials.course import load_measured
from awqscope.diagnose.trials.finished import OpenedRun
from awqscope.mixedprec.foreign.opening import open_beside
from awqscope.mixedprec.models.dtypes import BFLOAT16, FLOAT32
from awqscope.mixedprec.models.forward import computing_in
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.ranking import as_cost


def compare_alternatives(
    opened: OpenedRun,
    on_progress: OnProgress = lambda stage, done, total: None,
    *,
    only: Collection[str] = (),
    added: Mapping[str, str] = {},
    by_block: bool = False,
) -> Alternatives:
    """Measure alternatives to a run's uniform model on its text, and keep the answer beside it.

    only: names of METHODS; all that can be made where none are given. One whose library turns out
    not to be usable is then left out, like those that have none. added: name -> checkpoint,
    as `awqscope compare` reads them. by_block: whether each block is measured alone too. What is
    there of an earlier answer stays in it, but for what would be made otherwise today. InputError
    for names and checkpoints that cannot be used, and where the text is not what the run
    measured."""
    check_added(added)
    model, spec = opened.model, opened.spec
    uniform, mixed = opened.models[UNIFORM], opened.models.get(MIXED)
    raises = mixed is not None and mixed != uniform
    choice = choose_methods(spec, list_model_linears(model), raises=raises, only=only)
    record = opened.run.read_searched()
    study = study_of(opened.run, record)
    opened_added = [add_subject(name, path, model) for name, path in added.items()]
    precision = BFLOAT16 if spec.precision == BFLOAT16 else FLOAT32
    with study.hold(), computing_in(precision):
        inputs = load_measured(opened.run, model)
        at = Workplace(opened, inputs, folder_of(opened.run), on_progress)
        made = [method_subject(method, at) for method in choice.methods]
        # Searches last: what is measured before them is kept.
        quick = [subject for subject in made if not subject.is_searched]
        subjects = quick + opened_added + [subject for subject in made if subject.is_searched]
        answer = measure_missing(
            Bench(study, at), subjects, choice, by_block=by_block, needs_all=bool(only)
        )
        study.keep(answer.to_json())
    return answer


def add_subject(name: str, path: str, model: SourceModel) -> Subject:
    """A checkpoint that another tool made from the run's model."""
    candidate = open_beside(path, model)
    stamp = {"path": path, "hashes": candidate.hash()}
    title = name if name.lower() == candidate.method else f"{name} ({candidate.method})"
    return Subject(name, title, ADDED, stamp, partial(open_added, candidate, model))


def method_subject(method: Method, at: Workplace) -> Subject:
    """An alternative that is made here."""
    spec, source = at.opened.spec, method.source
    stamp = stamp_method(method, spec, at.opened.models.get(MIXED, {}))
    if isinstance(source, Rounded):
        stamp["rounding"] = str(MIXES[source.mix])
    return Subject(
        method.name,
        method.title(spec),
        method.kind,
        stamp,
        partial(make, at, method),
        is_searched=isinstance(source, Searched),
    )


def measure_missing(
    bench: Bench,
    subjects: Collection[Subject],
    choice: Choice,
    *,
    by_block: bool,
    needs_all: bool = False,
) -> Alternatives:
    """The answer with all of these, and what an earlier one has besides. needs_all: whether a
    method that cannot be made is an error; else it is left out."""
    kept, run = read_kept(bench.study), bench.at.opened.run
    rows = keep_current(kept, run).rows if kept else ()
    entries = {row.name: row.to_json() for row in rows}
    reference = list(kept.reference_nll) if kept else bench.reference_nll()
    left_out = {**(kept.left_out if kept else {}), **choice.left_out}
    for subject in subjects:
        there = entries.get(subject.name)
        known = there if there is not None and there["stamp"] == subject.stamp else None
        if known is not None and not (by_block and known.get("blocks") is None):
            continue
        try:
            entries[subject.name] = bench.measure(subject, known, by_block=by_block)
        except UnusableLibraryError as error:
            if needs_all:
                raise
            left_out[subject.name] = error.what
    resampler = Resampler(len(reference), bench.spec.seed)
    windows = {name: ByWindow.model_validate(entry["by_window"]) for name, entry in entries.items()}
    weighed = [
        Alternative.model_validate(
            {**entry, **weigh(windows[name], windows[UNIFORM], reference, resampler)}
        )
        for name, entry in entries.items()
    ]
    record = run.read_searched()
    return Alternatives(
        run=run.path.resolve().name,
        model=record.model,
        text=record.ppl_definition.text,
        windows=len(bench.windows),
        seq_len=bench.windows.shape[1],
        block_windows=len(bench.sampled),
        reference_ppl=perplexity(np.asarray(reference)),
        reference_bytes=reference_bytes(bench.model),
        quantized_before=record.source.quantized_before,
        reference_nll=reference,
        rows=sorted(weighed, key=lambda row: as_cost(row.kl[0])),
        left_out={name: why for name, why in left_out.items() if name not in entries},
    )
