"""lm-eval's samples, as it returns or logs them, to the scores that are kept of them."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from awqscope.mixedprec.errors import InputError

# The filter of tasks that filter nothing.
NO_FILTER = "none"
HASHES = ("doc_hash", "prompt_hash", "target_hash")
DIGITS = 16


@dataclass(frozen=True)
class Scored:
    """What samples say: names and hashes of the samples, metric -> a score a sample, and
    metrics that are no numbers of single samples -> why."""

    samples: Sequence[str]
    hashes: Sequence[str]
    scores: Mapping[str, Sequence[float]]
    left_out: Mapping[str, str]


def read_samples(by_task: Mapping[str, Iterable[Mapping[str, Any]]]) -> Scored:
    """The scores in the samples of a task, or of all tasks of a group. InputError for what are no
    samples of lm-eval, and where a sample is there twice."""
    hashes: dict[str, str] = {}
    found: dict[str, dict[str, Any]] = {}
    for task, samples in by_task.items():
        for sample in samples:
            try:
                name = f"{task}:{sample['doc_id']}"
                filtered = str(sample.get("filter", NO_FILTER))
                said = "\n".join(str(sample[each]) for each in HASHES)
                values = {metric: sample[metric] for metric in sample["metrics"]}
            except (LookupError, TypeError, AttributeError) as error:
                raise InputError(
                    f"a sample of {task} has no {str(error).strip(chr(39))}",
                    "give what lm-eval 0.4.5 or newer wrote with --log_samples",
                ) from error
            hashes[name] = hashlib.sha256(said.encode()).hexdigest()[:DIGITS]
            for metric, value in values.items():
                column = found.setdefault(name_metric(metric, filtered), {})
                if name in column:
                    raise InputError(
                        f"sample {sample['doc_id']} of {task} is there twice",
                        "give the results of one evaluation",
                    )
                column[name] = value
    scores: dict[str, list[float]] = {}
    left_out: dict[str, str] = {}
    for metric, column in found.items():
        numbers = [_as_number(column.get(name)) for name in hashes]
        if None in numbers:
            left_out[metric] = _explain(column, len(hashes))
        else:
            scores[metric] = [number for number in numbers if number is not None]
    return Scored(list(hashes), list(hashes.values()), scores, left_out)


def name_metric(metric: str, filtered: str) -> str:
    """What lm-eval calls a metric in its results, without the filter of tasks that have none."""
    return metric if filtered == NO_FILTER else f"{metric},{filtered}"


def _as_number(value: Any) -> float | None:
    """A score as a number; None for text, for lists and pairs, and for what is not finite."""
    if value is None or isinstance(value, str | bytes):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _explain(column: Mapping[str, Any], count: int) -> str:
    if len(column) < count:
        return f"{count - len(column):,} of {count:,} samples do not have it"
    if any(isinstance(value, list | tuple) for value in column.values()):
        return "it has several numbers a sample, which count only together"
    return "not every sample has a finite number"
