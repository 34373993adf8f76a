"""Where alternatives are measured: a run's model and texts, and what is kept of each measurement,
so that a study that was stopped goes on with the next."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from torch import Tensor

from awqscope.diagnose.inputs.sizes import reference_bytes
from awqscope.diagnose.machine.memory import return_freed_heap
from awqscope.diagnose.passes.views import list_sampled
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.statistics.bootstrap import Resampler, bounds
from awqscope.diagnose.statistics.likelihood import TokenScores
from awqscope.diagnose.studies.alternatives.making import Made, Workplace
from awqscope.diagnose.studies.alternatives.measuring import (
    run_whole,
    score_alone,
    score_reference,
    score_whole,
)
from awqscope.diagnose.studies.study import Study
from awqscope.diagnose.trials.course import STREAM_SHARE
from awqscope.mixedprec.models.forward import count_unit_weights
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.streams import CPU, Stream, StreamSpace

# Digits of a stamp that tell two of one name apart.
DIGITS = 12


@dataclass(frozen=True)
class Subject:
    """An alternative to be measured. stamp: what it is made with; make: makes it, when it is first
    needed. is_searched: whether that takes a search."""

    name: str
    title: str
    kind: str
    stamp: Mapping[str, Any]
    make: Callable[[], Made]
    is_searched: bool = False

    @property
    def key(self) -> str:
        """What its parts are called."""
        text = json.dumps(self.stamp, sort_keys=True)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}"


@dataclass
class Bench:
    """A run's model and text, and the study that keeps what is measured on them."""

    study: Study
    at: Workplace

    @property
    def spec(self) -> RunSpec:
        return self.at.opened.spec

    @property
    def model(self) -> SourceModel:
        return self.at.opened.model

    @property
    def windows(self) -> Tensor:
        return self.at.inputs.windows

    @cached_property
    def sampled(self) -> list[int]:
        """The windows that blocks are measured on alone."""
        return list_sampled(self.spec, self.windows)

    @cached_property
    def weights(self) -> int:
        """Weights of the linears of all blocks."""
        return count_unit_weights(self.model)

    @cached_property
    def space(self) -> StreamSpace:
        """Where streams are kept: in half of the run's memory, then in files."""
        budget = int(self.spec.max_memory * STREAM_SHARE)
        return StreamSpace(((CPU, budget),), self.study.parts)

    @cached_property
    def reference(self) -> Stream:
        """The reference's final hidden states."""
        model, steps = self.model, self.model.blocks
        return run_whole(
            model,
            self.windows,
            model.read_block,
            None,
            self.space,
            lambda done: self.at.progress("measuring the reference", done, steps),
        )

    def reference_nll(self) -> list[float]:
        """The reference's NLL by window."""

        def score() -> list[float]:
            return by_window(score_reference(self.model, self.windows, self.reference))["nll"]

        found: list[float] = self.study.part("reference", score)
        return found

    def measure(
        self, subject: Subject, known: Mapping[str, Any] | None, *, by_block: bool
    ) -> dict[str, Any]:
        """The entries of a row that do not depend on other rows, kept as soon as they are known.
        known: a row of the same subject, of which only the blocks are missing."""
        made = cache(subject.make)
        entries = known or self.study.part(
            f"{subject.key}.whole", lambda: self._measure_whole(subject, made)
        )
        if by_block:
            blocks = self.study.part(
                f"{subject.key}.blocks", lambda: self._measure_blocks(subject, made())
            )
            entries = {**entries, "blocks": blocks}
        return_freed_heap()
        described = {name: getattr(subject, name) for name in ("name", "title", "kind", "stamp")}
        return {**entries, **described}

    def _measure_whole(self, subject: Subject, make: Callable[[], Made]) -> dict[str, Any]:
        made, model, reference = make(), self.model, self.reference
        hidden = run_whole(
            model,
            self.windows,
            made.read_block,
            made.outside,
            self.space,
            lambda done: self.at.progress(f"measuring {subject.name}", done, model.blocks),
        )
        scores = score_whole(model, self.windows, reference, made, hidden)
        size = made.bytes
        if size is None:
            size = reference_bytes(model) - 2 * self.weights + made.unit_bytes
        return {
            "bytes": size,
            "bits_per_weight": 8 * made.unit_bytes / self.weights,
            "seconds": made.seconds(),
            "places": list(made.places),
            "weights_alone": made.weights_alone,
            "by_window": by_window(scores),
        }

    def _measure_blocks(self, subject: Subject, made: Made) -> list[tuple[float, float, float]]:
        steps = self.model.blocks
        scores = score_alone(
            self.model,
            self.windows[self.sampled],
            made.read_block,
            self.space,
            lambda done: self.at.progress(f"blocks of {subject.name}", done, steps),
        )
        resampler = Resampler(len(self.sampled), self.spec.seed)
        return [bounds(resampler.mean(one.kl.double().mean(1).numpy())) for one in scores]


def by_window(scores: TokenScores) -> dict[str, list[float]]:
    """Means over the tokens of each window, as an answer keeps them."""
    means = {"nll": scores.nll, "kl": scores.kl, "agreement": scores.agree}
    return {name: values.double().mean(1).tolist() for name, values in means.items()}
