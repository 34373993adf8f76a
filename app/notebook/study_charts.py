"""Charts of what is kept beside a run: answers to studies, and explained prompts."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import plotly.graph_objects as go
from pydantic import BaseModel, ValidationError

from awqscope.app.figures.studies.alternatives import draw_alternatives
from awqscope.app.figures.studies.calibration import draw_agreement, draw_curve, draw_matrix
from awqscope.app.figures.studies.causes import (
    draw_attention,
    draw_columns,
    draw_growth,
    draw_heads,
    draw_shares,
)
from awqscope.app.figures.studies.int8_inputs import draw_inputs
from awqscope.app.figures.studies.probes import draw_probe
from awqscope.app.figures.studies.tasks import draw_tasks
from awqscope.app.figures.studies.weights import (
    draw_channel_sizes,
    draw_clipping,
    draw_codes,
    draw_group,
    draw_limits,
)
from awqscope.app.figures.tokens import draw_blame, draw_positions
from awqscope.app.notebook.run import Run
from awqscope.app.notebook.run_charts import choose
from awqscope.app.words.studies.calibration import (
    list_texts,
    name_calibration,
    name_pair,
    name_texts,
)
from awqscope.app.words.studies.probe import list_points
from awqscope.app.words.studies.weights import name_group
from awqscope.app.words.studies.why import order_linears
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.alternatives.answer import Alternatives
from awqscope.diagnose.studies.alternatives.asked import keep_current
from awqscope.diagnose.studies.calibration.answer import CalibrationAdvice
from awqscope.diagnose.studies.causes.answer import Causes
from awqscope.diagnose.studies.int8_inputs.answer import Activations
from awqscope.diagnose.studies.probes.answer import BlockProbe
from awqscope.diagnose.studies.tasks.answer import Tasks
from awqscope.diagnose.studies.tasks.pairing import weigh_tasks
from awqscope.diagnose.studies.weights.answer import BlockWeights, LinearWeights
from awqscope.diagnose.studies.weights.searched import SearchedLinear, find_width, read_searched
from awqscope.mixedprec.errors import InputError

Answer = TypeVar("Answer", bound=BaseModel)
Row = Mapping[str, Any]


def _answer(run: Run, study: str, kind: type[Answer], command: str) -> Answer:
    """The answer that a run keeps to a study. InputError where there is none, or another version's.
    command: what asks it."""
    kept = run.store.study(run.name, study)
    if kept is None:
        remedy = f"ask for it with awqscope {command}"
        raise InputError(f"{run.path} keeps no answer to {study}", remedy)
    try:
        return kind.model_validate_json(json.dumps(kept["answer"]))
    except ValidationError as error:
        remedy = f"ask again with awqscope {command}"
        raise InputError(f"another version wrote {study} of {run.path}", remedy) from error


def _causes(run: Run, block: int) -> Causes:
    choose("block", block, range(run.record.source.blocks))
    return _answer(run, f"why-{block}", Causes, f"why {run.path} {block}")


def draw_why_channels(run: Run, block: int, linear: str | None = None) -> go.Figure:
    """The input channels of a linear, by default of the one that costs most."""
    known = {each.linear: each for each in order_linears(_causes(run, block)) if each.channels}
    chosen = next(iter(known), None) if linear is None else linear
    choose("linear", chosen, tuple(known))
    return draw_columns(known[str(chosen)])


def draw_why_heads(run: Run, block: int) -> go.Figure:
    """Shares of the block's error by head."""
    causes = _causes(run, block)
    if not any(linear.heads for linear in causes.linears):
        raise InputError(f"block {block} cannot be told by head", "see why-*.json, `lacking`")
    return draw_heads(causes)


def draw_why_attention(run: Run, block: int) -> go.Figure:
    """Entropy of attention by head in both models."""
    causes = _causes(run, block)
    if not causes.attention:
        raise InputError(
            f"the attention of block {block} is not known", "see why-*.json, `lacking`"
        )
    return draw_attention(causes.attention)


def _advice(run: Run) -> CalibrationAdvice:
    return _answer(run, "calibrate", CalibrationAdvice, f"calibrate {run.path}")


def draw_calibration_agreement(run: Run) -> go.Figure:
    """Shares of equal scale ratios, by kind of unit."""
    advice = _advice(run)
    if not advice.pairs:
        raise InputError("no two calibrations were set beside each other", "ask with --draws 1")
    return draw_agreement(
        advice.pairs, {(pair.one, pair.other): name_pair(pair) for pair in advice.pairs}
    )


def draw_calibration_texts(run: Run) -> go.Figure:
    """KL by calibration text and validation text."""
    advice = _advice(run)
    names = name_texts(advice)
    rows = [(name_calibration(each, names), each) for each in list_texts(advice)]
    return draw_matrix(rows, [names[column.text] for column in advice.columns])


def _explained(run: Run, name: str | None, prompt: int) -> Row:
    """An explained prompt, by default the first of the first file."""
    found = {key: entry for key, entry in run.store.explained(run.name).items() if entry}
    if not found:
        remedy = (
            f"explain one: awqscope explain {run.path} --prompt TEXT -o {run.path}/explained/1.json"
        )
        raise InputError(f"{run.path} keeps no explained prompt", remedy)
    chosen = sorted(found)[0] if name is None else name
    choose("explanation", chosen, sorted(found))
    entries = found[chosen]["prompts"]
    choose("prompt", prompt, range(len(entries)))
    return entries[prompt]


def draw_explained_tokens(run: Run, name: str | None = None, prompt: int = 0) -> go.Figure:
    """KL by token of a prompt and its continuation."""
    entry = _explained(run, name, prompt)
    parts_at = entry["prompt_tokens"] + entry["common"]
    return draw_positions(entry["pieces"], None if entry["parting"] is None else parts_at)


def draw_explained_blocks(run: Run, name: str | None = None, prompt: int = 0) -> go.Figure:
    """Which block breaks a prompt's token, and which brings it back."""
    entry = _explained(run, name, prompt)
    if not entry["blocks"]:
        raise InputError("nothing parts in this prompt", "give another one")
    parting = entry["parting"]
    return draw_blame(entry["blocks"], parting["margin_reference"], parting["margin_uniform"])


def draw_why_linears(run: Run, block: int) -> go.Figure:
    """Shares of the block's KL by linear."""
    return draw_shares(_causes(run, block).linears)


def draw_why_growth(run: Run, block: int) -> go.Figure:
    """The relative error along the block."""
    return draw_growth(_causes(run, block).growth)


def draw_block_probe(run: Run, block: int) -> go.Figure:
    """KL given back by alternatives to a block, against their bytes."""
    choose("block", block, range(run.record.source.blocks))
    return draw_probe(
        list_points(_answer(run, f"probe-{block}", BlockProbe, f"probe {run.path} {block}"))
    )


def draw_calibration(run: Run) -> go.Figure:
    """Damage over the number of calibration windows."""
    return draw_curve(_advice(run).calibrations)


def draw_run_alternatives(run: Run) -> go.Figure:
    """KL of other ways to quantize, by bits a weight."""
    command = f"alternatives {run.path}"
    found = _answer(run, "alternatives", Alternatives, command)
    return draw_alternatives(keep_current(found, RunDirectory(run.path)))


def draw_int8(run: Run) -> go.Figure:
    """KL of each block alone with its inputs at int8."""
    return draw_inputs(_answer(run, "activations", Activations, f"activations {run.path}"))


def draw_task_scores(run: Run) -> go.Figure:
    """What each model lost or gained on each task."""
    weighed, _ = weigh_tasks(_answer(run, "tasks", Tasks, f"tasks {run.path}"))
    if not weighed:
        raise InputError(f"{run.path} has no task with samples in pairs", "run another task")
    return draw_tasks(weighed)


def _weights(run: Run, block: int, linear: str | None) -> LinearWeights:
    """A linear of a block that was looked at, by default the one with the largest error."""
    choose("block", block, range(run.record.source.blocks))
    answer = _answer(run, f"weights-{block}", BlockWeights, f"weights {run.path} {block}")
    known = {each.linear: each for each in answer.linears if each.linear not in answer.brief}
    if linear is None:
        return max(known.values(), key=lambda each: each.relative_error or 0.0)
    choose("linear", linear, tuple(known))
    return known[linear]


def draw_weight_channels(run: Run, block: int, linear: str | None = None) -> go.Figure:
    """AWQ's scale of each input channel beside its activations and its weights."""
    found = _weights(run, block, linear)
    return draw_channel_sizes(found.channels, found.columns)


def draw_weight_clips(run: Run, block: int, linear: str | None = None) -> go.Figure:
    """Groups of a linear by the share of their range that is cut."""
    found = _weights(run, block, linear)
    if found.clipping is None or not found.clipping.clipped:
        raise InputError(f"nothing of {found.linear} of block {block} is cut", "choose another")
    return draw_clipping(found.clipping)


def draw_weight_codes(run: Run, block: int, linear: str | None = None) -> go.Figure:
    """How often each code and each zero point is used."""
    found = _weights(run, block, linear)
    if not found.codes:
        raise InputError(f"{found.linear} of block {block} is kept at 16 bits", "choose another")
    return draw_codes(found.codes, found.zeros)


def draw_weight_group(
    run: Run, block: int, linear: str | None = None, group: str | None = None
) -> go.Figure:
    """The weights of one group, `ROW:GROUP`, by default of the one that is rounded worst."""
    found = _weights(run, block, linear)
    known = {name_group(each): each for each in found.groups}
    chosen = next(iter(known), None) if group is None else group
    choose("group", chosen, tuple(known))
    return draw_group(known[str(chosen)])


def _find_searched(run: Run, block: int, linear: str) -> SearchedLinear:
    """What the search of a linear chose, at the width that its page has."""
    choose("block", block, range(run.record.source.blocks))
    record = run.directory.read_searched()
    bits = find_width(run.store.recipe(run.name), block, linear, record.spec.bits)
    known = read_searched(run.directory, block, bits)
    choose("linear", linear, tuple(known))
    return known[linear]


def draw_search_scales(run: Run, block: int, linear: str) -> go.Figure:
    """The scales that AWQ's search chose, beside the activations of their channels."""
    found = _find_searched(run, block, linear)
    if found.scales is None:
        raise InputError(f"AWQ does not scale the inputs of {linear}", "choose another")
    rows = run.directory.read_table("weights", ["block", "linear", "unit"]).to_pylist()
    unit = next((r["unit"] for r in rows if (r["block"], r["linear"]) == (block, linear)), "")
    kind = unit.partition(".")[2]
    sizes = found.list_sizes(run.store.array(run.name, f"channel_max.{block}.{kind}.reference"))
    return draw_channel_sizes(sizes, len(sizes))


def draw_search_limits(run: Run, block: int, linear: str) -> go.Figure:
    """How the largest weights that AWQ's search keeps of each group are spread."""
    found = _find_searched(run, block, linear)
    if found.limits is None:
        raise InputError(f"nothing of {linear} is clipped", "choose another")
    return draw_limits(found.limits)
