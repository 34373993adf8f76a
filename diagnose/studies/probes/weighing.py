"""What a probe's measurements come to: KL given back, with its interval, beside bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from awqscope.diagnose.entries.part import Bounded
from awqscope.diagnose.inputs.sizes import linear_bytes
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.statistics.bootstrap import Floats, Resampler, bounds
from awqscope.diagnose.statistics.survey import Survey
from awqscope.diagnose.studies.probes.alternatives import Alternative
from awqscope.diagnose.studies.probes.answer import Measured, judge, per_megabyte
from awqscope.diagnose.studies.probes.measuring import AS_RUN
from awqscope.diagnose.sweep.branches import view_name
from awqscope.mixedprec.models.forward import get_linear
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.scheme import LinearWidths


def read_uniform_kl(run: RunDirectory) -> Floats:
    """The uniform model's mean KL by window of a run's text [n]."""
    tokens = run.read_table("tokens", ["window", "kl_uniform"])
    window, kl = (tokens[name].to_numpy() for name in ("window", "kl_uniform"))
    # A window's first token is not scored.
    scored = ~np.isnan(kl)
    totals = np.bincount(window[scored], kl[scored].astype(np.float64))
    return totals / np.bincount(window[scored])


class Views:
    """The KL of a block's alternatives in both views, on a run's text of which some windows were
    measured. The uniform model's KL, which the run knows of every window, is their control."""

    def __init__(
        self,
        run: RunDirectory,
        seed: int,
        chosen: Sequence[int],
        by_window: Mapping[str, Sequence[float]],
    ):
        """chosen: the windows. by_window: KL of each of them, by view and alternative."""
        self._chosen, self._by_window = list(chosen), by_window
        self._control = read_uniform_kl(run)
        measured = np.zeros(len(self._control), dtype=bool)
        measured[self._chosen] = True
        self._survey = Survey(Resampler(len(measured), seed), measured, seed)

    def damage(self, view: str, name: str = AS_RUN) -> Bounded:
        """KL with an alternative, or with the block as the run has it, with its bounds."""
        return self._mean(self._read(view, name))

    def gain(self, view: str, name: str) -> Bounded:
        """KL that an alternative gives back, paired, with its bounds."""
        return self._mean(self._read(view, AS_RUN) - self._read(view, name))

    def _read(self, view: str, name: str) -> Floats:
        return np.array(self._by_window[view_name(view, name)])

    def _mean(self, by_window: Floats) -> Bounded:
        values = np.zeros(len(self._control))
        values[self._chosen] = by_window
        return bounds(self._survey.mean(values, self._control))


@dataclass(frozen=True)
class BlockSizes:
    """The bytes of a block's units on disk. spec: of the run."""

    model: SourceModel
    spec: RunSpec
    block: int

    @property
    def weights(self) -> int:
        """How many weights its units have."""
        shell = self.model.block_shell(self.block)
        linears = (name for kind in self.model.family.units for name in kind.linears)
        return sum(get_linear(shell, name).weight.numel() for name in linears)

    def count(self, widths: LinearWidths, alternative: Alternative | None = None) -> int:
        """Bytes at these widths of linears, as the run or as an alternative stores them."""
        spec = self.spec if alternative is None else alternative.change(self.spec)
        return sum(
            linear_bytes(self.model, self.block, linear, width, spec)
            for linear, width in widths.items()
        )


def weigh_alternative(
    each: Alternative, widths: LinearWidths, views: Views, sizes: BlockSizes, low: LinearWidths
) -> Measured:
    """What an alternative with these widths of linears gives back and costs. low: the widths of the
    block in the uniform model."""
    size = sizes.count(widths, each)
    extra, gain = size - sizes.count(low), views.gain("restored", each.name)
    units = {
        f"{sizes.block}.{kind.name}": str(widths[kind.linears[0]])
        for kind in sizes.model.family.units
    }
    return Measured(
        name=each.name,
        what=each.what,
        isolated=views.damage("isolated", each.name),
        restored=views.damage("restored", each.name),
        isolated_gain=views.gain("isolated", each.name),
        restored_gain=gain,
        extra_bytes=extra,
        bits_per_weight=8 * size / sizes.weights,
        gain_per_megabyte=per_megabyte(gain[0], extra),
        verdict=judge(gain),
        widths=units if each.is_recipe else None,
        options=each.options,
    )
