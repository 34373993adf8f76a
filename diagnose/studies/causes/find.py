"""Why a block of a finished run is hurt: found by measuring, with the run's search, on its text."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from awqscope.diagnose.runs.directory import OnProgress
from awqscope.diagnose.statistics.bootstrap import Floats, Resampler
from awqscope.diagnose.studies.causes.answer import Causes, LinearCauses, read_causes, study_of
from awqscope.diagnose.studies.causes.damage import measure_damage, reach_block
from awqscope.diagnose.studies.causes.heads import Heads, find_heads
from awqscope.diagnose.studies.causes.look import WHOLE, Looked, Stream, Subject, look_inside
from awqscope.diagnose.studies.causes.rules import Evidence, Suspect, find_causes_of
from awqscope.diagnose.studies.causes.switches import (
    ROUNDED,
    SCALED,
    SERVED,
    estimate_share,
    split_error,
    switch,
)
from awqscope.diagnose.studies.causes.texts import Texts, load_texts
from awqscope.diagnose.studies.study import Study, check_block
from awqscope.diagnose.sweep.swappable import SwappableBlock, list_linears, uniform_widths
from awqscope.diagnose.trials.finished import OpenedRun
from awqscope.mixedprec.awq.choices import load_search, search_path
from awqscope.mixedprec.models.forward import enter_blocks
from awqscope.mixedprec.models.streams import batch_size, list_slices
from awqscope.mixedprec.scheme import FP16_BITS

# The stages of the progress.
REACHING, LOOKING, MEASURING = "reaching the block", "looking inside", "measuring damage"


def find_causes(
    opened: OpenedRun,
    block: int,
    windows: int | None = None,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> Causes:
    """Why block `block` of a run is hurt at the low width. The answer is kept with the run.

    windows: how many windows of the run's validation text to look at; None for some 2,000 tokens,
    but at least 4 windows. on_progress: told of the stages REACHING, LOOKING and MEASURING. A study
    that was stopped goes on where it was. InputError for a block that there is not or that is kept
    at 16 bits, and for texts that are gone or have changed.
    """
    check_block(opened.run.read_searched(), block)
    kept = read_causes(opened.run, block, windows)
    if kept is not None:
        return kept
    texts = load_texts(opened, windows)
    study = study_of(opened.run, block, windows)
    with study.hold(), torch.no_grad():
        subject = functools.cache(lambda: _prepare(opened, block, texts, on_progress))
        looked = Looked.model_validate(
            study.part("look", lambda: _look(subject(), on_progress).to_json())
        )
        costs = _measure(study, subject, looked.suspects, texts, on_progress)
        causes = _conclude(opened, block, texts, looked, costs)
        study.keep(causes.to_json())
    return causes


def _prepare(opened: OpenedRun, number: int, texts: Texts, on_progress: OnProgress) -> Subject:
    """The block, what AWQ made of it, and what enters it."""
    model, spec = opened.model, opened.spec
    streams = []
    pairs = (texts.windows, texts.calibration)
    for place, windows in enumerate(pairs):
        entered, all_kwargs = enter_blocks(model, windows)

        def reached(done: int, before: int = place * number) -> None:
            on_progress(REACHING, before + done, len(pairs) * number)

        hidden = reach_block(model, number, entered.read(slice(None)), all_kwargs, reached)
        streams.append(Stream(hidden, all_kwargs))
    block = model.read_block(number)
    search = load_search(search_path(opened.run.searches, number, spec.bits))
    widths = uniform_widths(model, spec.bits, frozenset(spec.keep_fp16), number)
    alone = [
        linear
        for kind in model.family.units
        for linear in kind.linears
        if not kind.site and widths[linear] != FP16_BITS
    ]
    read = functools.cache(lambda token: str(opened.tokenizer.decode([token])))
    return Subject(
        model=model,
        number=number,
        swappable=SwappableBlock(
            block, {spec.bits: search}, model.dtype, list_linears(model.family)
        ),
        search=search,
        widths=widths,
        switched=switch(block, search, widths, alone, model.dtype),
        heads=_heads_of(opened),
        texts=texts,
        stream=streams[0],
        calibration=streams[1],
        read=read,
        seed=spec.seed,
    )


def _heads_of(opened: OpenedRun) -> Heads | None:
    model = opened.model
    return find_heads(model.family, model.config, model.block_shell(0))


def _look(subject: Subject, on_progress: OnProgress) -> Looked:
    return look_inside(subject, lambda done, total: on_progress(LOOKING, done, total))


def _measure(
    study: Study,
    subject: Callable[[], Subject],
    suspects: Sequence[Suspect],
    texts: Texts,
    on_progress: OnProgress,
) -> dict[str, Floats]:
    """KL by window of the block in every state, of its parts and of the suspects, a few windows at
    a time, each of which is a part of the study."""
    passes = list_slices(len(texts.windows), batch_size(texts.windows.shape[1]))
    head = functools.cache(lambda: subject().model.read_head())

    def measure(number: int, here: slice) -> dict[str, Any]:
        one = subject()
        steps = one.model.blocks - one.number

        def on_block(done: int) -> None:
            on_progress(MEASURING, number * steps + done, len(passes) * steps)

        return measure_damage(
            one.model,
            one.number,
            one.swappable,
            head(),
            texts.windows[here],
            one.stream.hidden[here],
            one.stream.all_kwargs,
            _list_variants(one, suspects),
            on_block,
        )

    found = [
        study.part(f"damage-{number}", functools.partial(measure, number, here))
        for number, here in enumerate(passes)
    ]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _list_variants(
    subject: Subject, suspects: Sequence[Suspect]
) -> dict[str, Mapping[str, Tensor]]:
    """What is measured: the block with steps switched on, its parts, and the suspects."""
    states = subject.switched.blocks
    return {
        WHOLE: states[SERVED],
        ROUNDED: states[ROUNDED],
        SCALED: states[SCALED],
        **subject.parts,
        **{suspect.name: subject.put(suspect) for suspect in suspects},
    }


def _conclude(
    opened: OpenedRun, block: int, texts: Texts, looked: Looked, costs: Mapping[str, Floats]
) -> Causes:
    """The answer."""
    spec, record = opened.spec, opened.run.read_searched()
    resampler = Resampler(len(texts.numbers), spec.seed)
    damage = {SERVED: costs[WHOLE], ROUNDED: costs[ROUNDED], SCALED: costs[SCALED]}
    whole = split_error(resampler, damage)
    once = np.ones(len(texts.numbers))
    linears = [
        LinearCauses.model_validate(
            {
                **dict(look),
                "kl": estimate_share(resampler, costs[look.linear], once),
                "share": estimate_share(resampler, costs[look.linear], costs[WHOLE]),
            }
        )
        for look in looked.linears
    ]
    noise = None if record.sweep is None else record.sweep.noise_floor
    evidence = Evidence(
        damage=damage,
        linears=linears,
        suspects=[(suspect, costs[suspect.name]) for suspect in looked.suspects],
        owners=texts.owners,
        names=texts.names,
        floor=None if noise is None else noise.kl,
        seed=spec.seed,
    )
    heads = _heads_of(opened)
    widths = uniform_widths(opened.model, spec.bits, frozenset(spec.keep_fp16), block)
    lacks = {
        "heads": heads is None,
        "experts": opened.model.family.experts is not None,
        "attention": heads is not None and not looked.attention,
    }
    return Causes(
        block=block,
        bits=spec.bits,
        windows=list(texts.numbers),
        seq_len=texts.windows.shape[1],
        texts=list(texts.names),
        calibration=spec.calib,
        floor=evidence.floor,
        kl=whole.total,
        by_window=costs[WHOLE].tolist(),
        damage=whole,
        heads=None if heads is None else heads.count,
        kv_heads=None if heads is None else heads.groups,
        linears=linears,
        growth=looked.growth,
        attention=looked.attention,
        usual=looked.usual,
        findings=find_causes_of(evidence),
        kept=[name for name, bits in widths.items() if bits == FP16_BITS],
        lacking=[name for name, is_lacking in lacks.items() if is_lacking],
    )
