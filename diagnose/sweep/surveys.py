"""Scores over a whole text of which the views were measured on some windows, and their means."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from awqscope.diagnose.statistics.bootstrap import Resampler
from awqscope.diagnose.statistics.survey import Survey
from awqscope.diagnose.sweep.branches import REFERENCE, UNIFORM


class TextScores:
    """Scores by window of a whole text [n, …], put together from sweeps of some of its windows.

    Whatever was measured on only some of them is zero elsewhere; `measured.NAME` [n] says where it
    was, and is there for nothing else."""

    def __init__(self, windows: int, scores: Mapping[str, Tensor] = {}):
        self.windows = windows
        self._scores = dict(scores)

    def put(self, joined: Mapping[str, Tensor], windows: Sequence[int]) -> None:
        """Take in what was measured on the windows of these numbers, as `join_chunks` gives it."""
        at = torch.as_tensor(windows)
        for name, values in joined.items():
            if name == "worst":
                self._scores[name] = at[values]
            elif name.startswith("worst."):
                self._scores[name] = values
            else:
                whole = self._scores.get(name)
                if whole is None:
                    whole = torch.zeros((self.windows, *values.shape[1:]), dtype=values.dtype)
                whole[at] = values
                self._scores[name] = whole
                if name.startswith("kl."):
                    self._mark(f"measured.{name.removeprefix('kl.')}", at)

    def _mark(self, name: str, at: Tensor) -> None:
        mask = self._scores.get(name, torch.zeros(self.windows, dtype=torch.bool))
        mask[at] = True
        self._scores[name] = mask

    def arrays(self) -> dict[str, Tensor]:
        """Everything, by name."""
        whole = {n for n, v in self._scores.items() if n.startswith("measured.") and v.all()}
        return {name: values for name, values in self._scores.items() if name not in whole}


def where_measured(scores: Mapping[str, Tensor], name: str) -> NDArray[np.bool_]:
    """The windows that a model was measured on, a mask [n]."""
    mask = scores.get(f"measured.{name}")
    return np.ones(len(scores[f"kl.{UNIFORM}"]), bool) if mask is None else mask.numpy()


class Surveys:
    """The means over a text of the scores `scores`, whose views were measured on some windows."""

    def __init__(self, scores: Mapping[str, Tensor], seed: int):
        self._scores, self._seed = scores, seed
        self.windows = len(scores[f"kl.{UNIFORM}"])
        self.resampler = Resampler(self.windows, seed)
        self._known: dict[bytes, Survey] = {}

    def of(self, name: str) -> Survey:
        """The survey of the windows that a model was measured on."""
        return self.on(where_measured(self._scores, name))

    def on(self, measured: NDArray[np.bool_]) -> Survey:
        """The survey of these windows, a mask [n]."""
        key = measured.tobytes()
        if key not in self._known:
            self._known[key] = Survey(self.resampler, measured, self._seed)
        return self._known[key]

    def values(self, score: str, name: str) -> NDArray[np.float64]:
        """A score (`kl`, `nll`, `agree`) of a model by window [n]."""
        return self._scores[f"{score}.{name}"].numpy()

    def damage(self, name: str) -> dict[str, float]:
        """delta_nll, delta_ppl and kl of a model against the reference, with their bounds, and
        top1_agreement. The uniform model, measured on every window, is their control."""
        survey = self.of(name)
        reference, uniform = self.values("nll", REFERENCE), self.values("nll", UNIFORM)
        nll = self.values("nll", name)
        agree = survey.level(self.values("agree", name), self.values("agree", UNIFORM))
        estimates = {
            "delta_nll": survey.mean(nll - reference, uniform - reference),
            "delta_ppl": survey.ppl_difference(reference, nll, uniform),
            "kl": survey.mean(self.values("kl", name), self.values("kl", UNIFORM)),
        }
        row = {}
        for column, estimate in estimates.items():
            row[column] = estimate.value
            row[f"{column}_low"] = estimate.low
            row[f"{column}_high"] = estimate.high
        return row | {"top1_agreement": min(1.0, agree)}

    def kl(self, name: str) -> float:
        """The mean KL of a model."""
        return self.of(name).level(self.values("kl", name), self.values("kl", UNIFORM))
