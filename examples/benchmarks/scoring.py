"""Choices of other tools at equal bytes: ModelOpt's auto_quantize and AutoRound's AutoScheme.

`python -m examples.benchmarks.scoring RUN [...]`, where those tools are installed (see
`make test-targets`). For every finished run, at 4.5 and 5 bits per weight, scales and zero
points counted: each tool scores the run's model on the run's windows, ours as a run does on those
of its first look, and chooses between the run's two widths, fused linears together; its choice is
then realised with the run's own AWQ searches, as ours is, and measured. Times are of scoring and
choosing alone, ours without reading what a run keeps; each tool's just after ours in one process.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from awqscope import Option, ScoredUnit, Scores, recipe_of, solve
from awqscope.diagnose.passes.views import list_sampled
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.scores import read_scores
from awqscope.diagnose.sweep.estimator import estimate_units
from awqscope.diagnose.trials.course import Course, open_course
from awqscope.diagnose.trials.race import measure_kl
from examples.benchmarks.pieces import Piece, print_all

TARGETS = (4.5, 5.0)
Bits = dict[str, int]


def load(course: Course) -> Any:
    """The run's model whole, as these tools take it."""
    return AutoModelForCausalLM.from_pretrained(course.inputs.model.path, dtype=torch.float32)


def by_unit(scores: Scores, chosen: Callable[[str], int]) -> Bits:
    """unit -> bits, the widest that a tool gives any of its linears."""
    return {unit.name: max(chosen(name) for name in unit.linears) for unit in scores.units}


def choose_by_awqscope(course: Course, scores: Scores, target: float) -> Bits:
    """Scored anew by the one-pass estimator: no exact measurement in it."""
    spec, inputs = course.spec, course.inputs
    windows = inputs.windows[list_sampled(spec, inputs.windows)]
    found = estimate_units(
        inputs.model, windows, course.run.searches, tuple(spec.schemes), seed=1
    ).units

    def score(unit: ScoredUnit) -> ScoredUnit:
        options = tuple(
            Option(o.bits, o.bytes, float(found[unit.name, o.bits].mean()))
            for o in unit.options
            if o.bits in spec.schemes
        )
        # A unit that the run kept has no other width.
        return ScoredUnit(unit.name, unit.linears, unit.weights, options or unit.options)

    units = tuple(map(score, scores.units))
    anew = Scores(scores.model, units, scores.fixed_bytes, scores.uniform_kl)
    return solve(anew, target_bits=target).bits


def choose_by_modelopt(course: Course, scores: Scores, target: float) -> Bits:
    """auto_quantize, gradient mode. It counts nominal bits, and the head among the weights: those
    that make our bytes."""
    import modelopt.torch.quantization as mtq

    model, spec, windows = load(course), course.spec, course.inputs.windows
    narrow = 8 * scores.unit_bytes(scores.uniform) / scores.weights
    wide = dict.fromkeys(scores.uniform, spec.rescue_bits)
    step = (8 * scores.unit_bytes(wide) / scores.weights - narrow) / (spec.rescue_bits - spec.bits)

    def scheme(bits: int) -> dict[str, Any]:
        group = spec.schemes[bits].group(model.config.hidden_size)
        return {
            "quant_cfg": [
                {"quantizer_name": "*", "enable": False},
                {
                    "quantizer_name": "*weight_quantizer",
                    "cfg": {"num_bits": bits, "block_sizes": {-1: group, "type": "static"}},
                    "enable": True,
                },
            ],
            "algorithm": "max",
        }

    head = model.get_output_embeddings().weight.numel()
    nominal = spec.bits + (target - narrow) / step
    batches = [{"input_ids": window[None], "labels": window[None]} for window in windows]
    found, _ = mtq.auto_quantize(
        model,
        constraints={
            "effective_bits": (nominal * scores.weights + 16 * head) / (scores.weights + head)
        },
        quantization_formats=[scheme(spec.bits), scheme(spec.rescue_bits)],
        data_loader=batches,
        forward_step=lambda model, batch: model(**batch),
        loss_func=lambda output, batch: output.loss,
        disabled_layers=["*lm_head*", "*embed*"],
        num_calib_steps=len(batches),
        num_score_steps=len(batches),
        verbose=False,
    )

    def width(name: str) -> int:
        quantizer = found.get_submodule(name).weight_quantizer
        return int(quantizer.num_bits) if quantizer.is_enabled else 16

    return by_unit(scores, width)


def choose_by_autoround(course: Course, scores: Scores, target: float) -> Bits:
    """AutoScheme, with q/k/v and gate/up held together."""
    from auto_round import AutoRound, AutoScheme
    from auto_round.schemes import QuantizationScheme

    spec, windows = course.spec, course.inputs.windows
    tokenizer = AutoTokenizer.from_pretrained(course.inputs.model.path)
    group = spec.group_size
    shared: dict[tuple[str, ...], None] = {}
    for unit in scores.units:
        if len(unit.linears) > 1:
            shared[tuple(name.rpartition(".")[2] for name in unit.linears)] = None
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.json"
        texts.write_text(json.dumps([{"text": tokenizer.decode(w)} for w in windows]))
        scheme = AutoScheme(
            avg_bits=target,
            options=[
                QuantizationScheme(bits=spec.bits, group_size=group, sym=spec.symmetric),
                QuantizationScheme(bits=spec.rescue_bits, group_size=group, sym=True),
            ],
            shared_layers=list(shared) or None,
            nsamples=len(windows),
            seqlen=windows.shape[1] // 2,
            dataset=str(texts),
            batch_size=1,
            enable_torch_compile=False,
        )
        rounder = AutoRound(
            load(course),
            tokenizer,
            scheme=scheme,
            iters=0,
            nsamples=1,
            seqlen=32,
            disable_opt_rtn=True,
            dataset=str(texts),
            enable_torch_compile=False,
        )
        _, chosen = rounder.quantize()
    return by_unit(scores, lambda name: int(chosen[name]["bits"]))


CHOOSERS: Mapping[str, Callable[[Course, Scores, float], Bits]] = {
    "awqscope": choose_by_awqscope,
    "ModelOpt": choose_by_modelopt,
    "AutoScheme": choose_by_autoround,
}


def score_by(tool: str, path: Path, target: float) -> str:
    """What a tool's choice for a run gives back, and its time beside ours."""
    course, scores = open_course(RunDirectory(path), None), read_scores(path)
    seconds, chosen = {}, {}
    for name in dict.fromkeys(("awqscope", tool)):
        began = time.perf_counter()
        try:
            chosen[name] = CHOOSERS[name](course, scores, target)
        except Exception as error:
            return f"{target} bits: {name} did not run: {type(error).__name__}: {error}"
        seconds[name] = time.perf_counter() - began
    found = measure_kl(
        course.inputs.model,
        course.inputs.windows,
        course.run.searches,
        {tool: recipe_of(scores, chosen[tool], kind=tool)},
        course.spec.max_memory,
    )
    share = 1 - float(found[tool].mean()) / scores.uniform_kl
    return (
        f"{path.name}, {target} bits: {tool} takes "
        f"{scores.predict(chosen[tool]).bits_per_weight:.3f} bits, gives back {share:.2%} of the "
        f"lost KL, time {seconds[tool] / seconds['awqscope']:.2f}x ours"
    )


def list_pieces(runs: Sequence[Path]) -> Iterator[Piece]:
    """Every run in turn, at each size, by each tool."""
    for path in runs:
        for target in TARGETS:
            for tool in CHOOSERS:
                name = f"scoring, {path.absolute()}, {target}, {tool}"
                yield Piece(name, partial(score_by, tool, path, target))


if __name__ == "__main__":
    print_all(list_pieces([Path(run) for run in sys.argv[1:]]))
