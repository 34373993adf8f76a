"""Measuring partly quantized models of a run on texts of one's own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from awqscope.diagnose.explain.cheapest import Outcome
from awqscope.diagnose.explain.readings import Reading, join_readings, judge, read_logits
from awqscope.diagnose.runs.directory import OnProgress
from awqscope.diagnose.statistics.likelihood import tokens_a_chunk
from awqscope.diagnose.trials.finished import OpenedRun
from awqscope.diagnose.trials.variants import Variant, run_variants, split_variants
from awqscope.mixedprec.models.served import Ends
from awqscope.mixedprec.scheme import UnitWidths


@dataclass(frozen=True)
class Bench:
    """What variants of an opened run are measured with. budget: bytes for the streams of one pass;
    on_progress: told of blocks done, stage `compare` (whole texts) or `judge` (beginnings)."""

    opened: OpenedRun
    ends: Ends
    budget: int
    on_progress: OnProgress


def _measure(bench: Bench, variants: Sequence[Variant], stage: str) -> Iterator[Tensor]:
    """Final hidden states [1, tokens, d] of each variant, in turn."""
    model = bench.opened.model
    parts = split_variants(variants, model.config.hidden_size, bench.budget)
    for number, part in enumerate(parts):

        def on_block(done: int, before: int = number * model.blocks) -> None:
            bench.on_progress(stage, before + done, len(parts) * model.blocks)

        searches = bench.opened.run.searches
        yield from run_variants(model, bench.ends, part, searches, on_block=on_block)


@torch.no_grad()
def judge_variants(
    bench: Bench, variants: Sequence[Variant], wanted: Sequence[Sequence[int]]
) -> Iterator[Outcome]:
    """Whether each variant predicts the tokens wanted of it. The variant's text ends with these
    tokens but for the last, which would follow it."""
    finals = _measure(bench, variants, "judge")
    for variant, final, tokens in zip(variants, finals, wanted, strict=True):
        head = bench.ends.heads[variant.stored]
        yield judge(head(final[:, -len(tokens) :])[0].float(), tokens)


@torch.no_grad()
def _read(
    bench: Bench, variant: Variant, final: Tensor, reference: Tensor, last: int, prompt: int
) -> Reading:
    """What a variant's final states say of a text, compared with the reference's; both are
    [1, tokens − 1, d], of all of the text but its `last` token."""
    text = (*variant.tokens, last)
    head = bench.ends.heads[variant.stored]
    targets = torch.tensor(text[1:])
    step = tokens_a_chunk(bench.opened.model.config.vocab_size)
    parts = []
    for start in range(0, len(targets), step):
        here = slice(start, start + step)
        expected = bench.ends.heads[False](reference[:, here])[0].float()
        parts.append(read_logits(expected, head(final[:, here])[0].float(), targets[here]))
    return join_readings(parts, prompt)


def read_models(
    bench: Bench,
    texts: Mapping[int, Sequence[int]],
    prompts: Sequence[Sequence[int]],
    models: Mapping[int, Mapping[str, UnitWidths]],
) -> dict[int, dict[str, Reading]]:
    """Each prompt's text (prompt and continuation) as each of its models reads it. A prompt's first
    model is the reference, which the others are compared with."""
    asked = [(number, name) for number in texts for name in models[number]]
    variants = [
        Variant(tuple(texts[n][:-1]), models[n][name], stored=name != "reference")
        for n, name in asked
    ]
    found: dict[int, dict[str, Reading]] = {number: {} for number in texts}
    reference = None
    finals = _measure(bench, variants, "compare")
    for (number, name), variant, final in zip(asked, variants, finals, strict=True):
        if name == "reference":
            reference = final
        assert reference is not None
        last, prompt = texts[number][-1], len(prompts[number])
        found[number][name] = _read(bench, variant, final, reference, last, prompt)
    return found
