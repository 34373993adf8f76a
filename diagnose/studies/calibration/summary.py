"""The answer of a study, from what was measured of each window."""

from collections.abc import Mapping, Sequence

import numpy as np

from awqscope.diagnose.inputs.load import hash_tokens
from awqscope.diagnose.statistics.bootstrap import bounds, perplexity
from awqscope.diagnose.studies.calibration.answer import (
    Agreement,
    Beside,
    Calibrated,
    CalibrationAdvice,
    Cell,
    Column,
)
from awqscope.diagnose.studies.calibration.calibrations import HALVES, RUN, Calibration
from awqscope.diagnose.studies.calibration.measuring import Measured, Pair, join_windows
from awqscope.diagnose.studies.calibration.rules import (
    Numbers,
    advise_on_domains,
    advise_on_halves,
    advise_windows,
    find_spread,
)
from awqscope.diagnose.studies.calibration.texts import Texts
from awqscope.diagnose.sweep.branches import REFERENCE
from awqscope.diagnose.trials.finished import OpenedRun
from awqscope.mixedprec.scheme import ENOUGH_TOKENS


def summarise(
    opened: OpenedRun,
    texts: Texts,
    calibrations: Sequence[Calibration],
    measured: Sequence[Measured],
    agreements: Mapping[Pair, tuple[Agreement, ...]],
    search: str,
) -> CalibrationAdvice:
    """The answer. measured: of consecutive windows of the validation texts; agreements: of pairs of
    calibrations; search: how they were searched."""
    whole, seed = join_windows(measured), opened.spec.seed
    ends = np.cumsum([len(column.windows) for column in texts.columns]).tolist()
    own = whole.cut(slice(ends[sum(column.of_run for column in texts.columns) - 1]))
    overall = Numbers(own, seed)
    columns = {
        column.text.spec: Numbers(whole.cut(slice(end - len(column.windows), end)), seed)
        for column, end in zip(texts.columns, ends, strict=True)
    }
    spread = find_spread(overall, calibrations, as_run=search == opened.spec.search)
    halves = agreements.get(HALVES)
    record = opened.run.read_searched()
    return CalibrationAdvice(
        calib=texts.calib.spec,
        given=record.calibration.windows,
        read=len(texts.read),
        seq_len=texts.read.shape[1],
        run_search=opened.spec.search,
        search=search,
        fast_tokens=None if opened.model.family.experts is not None else ENOUGH_TOKENS,
        reference_ppl=perplexity(own.nll[REFERENCE]),
        columns=tuple(
            Column(
                text=column.text.spec,
                windows=len(column.windows),
                tokens=column.windows.numel(),
                of_run=column.of_run,
            )
            for column in texts.columns
        ),
        calibrations=tuple(_describe(each, overall, columns) for each in calibrations),
        pairs=tuple(_set_beside(pair, overall, found) for pair, found in agreements.items()),
        spread=spread,
        windows=advise_windows(overall, calibrations, spread),
        stability=advise_on_halves(overall, halves[0]) if halves else None,
        domains=advise_on_domains(columns, overall, calibrations),
    )


def _describe(
    calibration: Calibration, overall: Numbers, columns: Mapping[str, Numbers]
) -> Calibrated:
    """A calibration with what its model costs. overall: on all windows of the run; columns: on each
    validation text."""
    name, found = calibration.name, overall.measured
    delta = overall.resampler.ppl_difference(found.nll[REFERENCE], found.nll[name])
    return Calibrated(
        name=name,
        role=calibration.role,
        texts=calibration.texts,
        windows=len(calibration.windows),
        of_last=calibration.of_last,
        tokens=calibration.windows.numel(),
        tokens_sha256=hash_tokens(calibration.windows),
        kl=bounds(overall.resampler.mean(found.kl[name])),
        ppl=perplexity(found.nll[name]),
        delta_ppl=bounds(delta),
        gain=bounds(overall.gain(RUN, name)),
        cells=tuple(
            Cell(
                text=text,
                kl=bounds(numbers.resampler.mean(numbers.measured.kl[name])),
                gain=bounds(numbers.gain(RUN, name)),
            )
            for text, numbers in columns.items()
        ),
    )


def _set_beside(pair: Pair, numbers: Numbers, found: tuple[Agreement, ...]) -> Beside:
    """Two calibrations beside each other. found: how far they agree, by width."""
    one, other = pair
    kl, apart = numbers.measured.kl, numbers.measured.apart[pair]
    return Beside(
        one=one,
        other=other,
        kl=bounds(numbers.resampler.mean(apart)),
        share=bounds(numbers.share(apart)),
        difference=bounds(numbers.share(kl[other] - kl[one])),
        agreements=found,
    )
