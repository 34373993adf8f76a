"""A run's calibration, advised: what more windows, other windows and other texts would change, by
searching and measuring them.

A search reads the calibration windows alone, and blocks are searched on what the unquantized blocks
before them give, so that every calibration can be searched beside the run without measuring
anything anew; all the models that they make are then measured in one pass.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awqscope.diagnose.studies.calibration.agreement import compare_searches
from awqscope.diagnose.studies.calibration.answer import Agreement, CalibrationAdvice
from awqscope.diagnose.studies.calibration.asked import USUAL, Asked, check_asked, read_advice
from awqscope.diagnose.studies.calibration.calibrations import (
    HALVES,
    RUN,
    Calibration,
    list_calibrations,
)
from awqscope.diagnose.studies.calibration.measuring import Measured, Pair, measure_uniforms
from awqscope.diagnose.studies.calibration.planning import Plan, plan_study
from awqscope.diagnose.studies.calibration.searching import (
    OnProgress,
    choose_schemes,
    find_folders,
    list_unsearched,
    search_calibrations,
)
from awqscope.diagnose.studies.calibration.summary import summarise
from awqscope.diagnose.studies.calibration.texts import Texts, load_texts
from awqscope.diagnose.studies.study import Study
from awqscope.diagnose.trials.course import STREAM_SHARE
from awqscope.diagnose.trials.finished import OpenedRun
from awqscope.mixedprec.models.streams import CPU, FLOAT_BYTES, batch_size, list_slices

# Tokens that are measured at a time, at most: a killed study loses what it has of them.
CHUNK_TOKENS = 8192


@dataclass(frozen=True, eq=False)
class Prepared:
    """A study that can begin. search: `fast` or `exact`. folders: of each calibration's search."""

    opened: OpenedRun
    asked: Asked
    search: str
    texts: Texts
    calibrations: Sequence[Calibration]
    folders: dict[str, Path]

    @property
    def is_exact(self) -> bool:
        return self.search == "exact"

    @property
    def windows(self) -> Tensor:
        """Every validation window that is measured, text after text."""
        return torch.cat([column.windows for column in self.texts.columns])

    @property
    def pairs(self) -> list[Pair]:
        """Calibrations that are set beside each other: halves, and every draw with the run's, or
        with the first draw where the run was searched otherwise."""
        names = [each.name for each in self.calibrations]
        halves = [(HALVES[0], HALVES[1])] if HALVES[0] in names else []
        drawn = [RUN] if self.search == self.opened.spec.search else []
        drawn += [each.name for each in self.calibrations if each.role == "draw"]
        return halves + [(drawn[0], other) for other in drawn[1:]]

    def question(self) -> Study:
        """The study as the run keeps it."""
        return self.asked.study(self.opened.run, self.texts.hashes())

    def plan(self) -> Plan:
        """What it will take."""
        windows = self.windows
        return plan_study(
            self.opened,
            list_unsearched(self.opened, self.calibrations, self.folders),
            models=len(set(self.folders.values())),
            windows=(len(windows), windows.shape[1]),
            exact=self.is_exact,
        )


def prepare_study(opened: OpenedRun, asked: Asked) -> Prepared:
    """The texts and calibrations of a study. InputError for what cannot be asked of the run, and
    for texts that cannot be used or have changed since."""
    check_asked(asked, opened.spec)
    search = asked.search or opened.spec.search
    texts = load_texts(opened, asked)
    calibrations = list_calibrations(
        texts.read,
        texts.calib.spec,
        texts.available,
        {corpus.spec: windows for corpus, windows in texts.also},
        counts=asked.counts,
        draws=asked.draws,
        seed=opened.spec.seed,
    )
    folders = find_folders(opened, calibrations, search)
    return Prepared(opened, asked, search, texts, calibrations, folders)


def advise_calibration(
    opened: OpenedRun,
    asked: Asked = USUAL,
    on_progress: OnProgress = lambda stage, done, total: None,
    *,
    on_plan: Callable[[Plan], None] = lambda plan: None,
    device: torch.device = CPU,
) -> CalibrationAdvice:
    """What a run's calibration windows decide, and which would be better.

    Searches halves of the windows that the run read, other draws, more and fewer, and other texts;
    measures the uniform model of each on the run's validation windows. on_plan is told what that
    will take; it is not called where the answer is kept from before. A stopped study goes on where
    it was. InputError for texts that cannot be used or have changed."""
    return carry_out(prepare_study(opened, asked), on_progress, on_plan=on_plan, device=device)


def carry_out(
    prepared: Prepared,
    on_progress: OnProgress,
    *,
    on_plan: Callable[[Plan], None] = lambda plan: None,
    device: torch.device = CPU,
) -> CalibrationAdvice:
    """The answer to a prepared study, kept or measured."""
    study = prepared.question()
    kept = read_advice(study)
    if kept is not None:
        return kept
    with study.hold():
        on_plan(prepared.plan())
        search_calibrations(
            prepared.opened,
            prepared.calibrations,
            prepared.folders,
            exact=prepared.is_exact,
            spill=study.parts,
            on_progress=on_progress,
            device=device,
        )
        agreements = _compare(prepared, study, on_progress)
        measured = _measure(prepared, study, on_progress, device)
        answer = summarise(
            prepared.opened,
            prepared.texts,
            prepared.calibrations,
            measured,
            agreements,
            prepared.search,
        )
        study.keep(answer.to_json())
    return answer


def _compare(
    prepared: Prepared, study: Study, on_progress: OnProgress
) -> dict[Pair, tuple[Agreement, ...]]:
    """How far the searches of each pair agree, at every width that both are searched at."""
    opened, by_name = prepared.opened, {each.name: each for each in prepared.calibrations}
    wanted = [
        (pair, scheme.bits)
        for pair in prepared.pairs
        for scheme in choose_schemes(opened.spec, by_name[pair[1]])
    ]
    blocks = opened.model.blocks
    found: dict[Pair, tuple[Agreement, ...]] = {}
    for number, (pair, bits) in enumerate(wanted):
        one, other = (prepared.folders[name] for name in pair)

        def report(done: int, before: int = number * blocks) -> None:
            on_progress("comparing choices", before + done, len(wanted) * blocks)

        def compare(one: Path = one, other: Path = other, bits: int = bits) -> Any:
            return compare_searches(opened.model, one, other, bits, report).to_json()

        kept = study.part(f"agreement-{number}", compare)
        agreement = Agreement.model_validate_json(json.dumps(kept))
        found[pair] = (*found.get(pair, ()), agreement)
    return found


def _measure(
    prepared: Prepared, study: Study, on_progress: OnProgress, device: torch.device
) -> list[Measured]:
    """Every model on every validation window, a part of the windows at a time."""
    opened, windows = prepared.opened, prepared.windows
    model, spec = opened.model, opened.spec
    length, streams = windows.shape[1], len(set(prepared.folders.values())) + 2
    room = int(spec.max_memory * STREAM_SHARE) // (
        streams * length * model.config.hidden_size * FLOAT_BYTES
    )
    batch = batch_size(length)
    # Whole batches: a window is then computed beside the same others, however they are cut.
    size = max(1, min(room, CHUNK_TOKENS // length) // batch) * batch
    chunks, steps = list_slices(len(windows), size), model.blocks + 1
    measured = []
    for number, chunk in enumerate(chunks):

        def measure(chunk: slice = chunk, before: int = number * steps) -> Any:
            found = measure_uniforms(
                model,
                windows[chunk],
                prepared.folders,
                prepared.pairs,
                bits=spec.bits,
                kept=frozenset(spec.keep_fp16),
                on_block=lambda done: on_progress("measuring", before + done, len(chunks) * steps),
                device=device,
            )
            return found.to_json()

        measured.append(Measured.from_json(study.part(f"measured-{number}", measure)))
    return measured
