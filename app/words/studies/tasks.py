"""What is said of the tasks that a run's models were given, wherever they are shown."""

from collections.abc import Sequence

from awqscope.diagnose.runs.record import REFERENCE
from awqscope.diagnose.studies.tasks.answer import Tasks
from awqscope.diagnose.studies.tasks.pairing import Paired, Weighed
from awqscope.mixedprec.words import (
    Written,
    join_words,
    write_bounded,
    write_chance,
    write_count,
    write_number,
    write_share,
)

TITLE = "Tasks"
SUMMARY = (
    "Tasks of lm-eval that the 16-bit model and the quantized ones were given, paired by sample: "
    "which answers turned, how much of the score that is, and how surely it is no chance."
)
COLUMNS = {
    "task": "Task",
    "model": "Model",
    "reference": "16 bits",
    "score": "Score",
    "gained": "Difference [95%]",
    "worse": "Worse",
    "better": "Better",
    "samples": "Samples",
    "p": "p",
    "adjusted": "p, of all tasks",
}
ALPHA = 0.05
# More tasks than these are counted, not named.
MOST_NAMED = 3
Rows = list[dict[str, str]]


def task_rows(weighed: Sequence[Weighed]) -> Rows:
    """A row a task and model, under COLUMNS."""
    return [
        {
            "task": f"{each.pair.task}, {each.pair.metric}",
            "model": each.pair.name,
            "reference": _write_score(each.pair, 0),
            "score": _write_score(each.pair, 1),
            "gained": write_gained(each.pair),
            "worse": write_count(each.pair.changed[0]),
            "better": write_count(each.pair.changed[1]),
            "samples": write_count(each.pair.samples),
            "p": _write_p(each.pair.chance),
            "adjusted": _write_p(each.adjusted),
        }
        for each in weighed
    ]


def _write_score(pair: Paired, which: int) -> str:
    value = pair.means[which]
    return write_share(value) if pair.flips is not None else write_number(value, ".4f")


def _write_p(value: float) -> str:
    """A p value where its column says what it is."""
    return Written(write_chance(value).removeprefix("= "), value)


def write_gained(pair: Paired) -> str:
    """What the model scores more than the reference, in points where samples are right or wrong."""
    drop = pair.bound()
    sign = -1 if pair.higher_is_better else 1
    # Adding zero makes none of the one that is negative.
    value, *ends = (sign * each + 0.0 for each in (drop.value, drop.low, drop.high))
    low, high = sorted(ends)
    if pair.flips is None:
        return write_bounded(value, (low, high), "+.4f")
    points = write_bounded(100 * value, (100 * low, 100 * high), "+.2f")
    return Written(f"{points} points", value, low, high)


def write_finding(weighed: Sequence[Weighed]) -> list[str]:
    """What the table comes to, a sentence a model."""
    sentences = []
    for model in dict.fromkeys(each.pair.name for each in weighed):
        mine = [each for each in weighed if each.pair.name == model]
        sure = [each for each in mine if each.adjusted <= ALPHA]
        worse = [each.pair.task for each in sure if each.pair.bound().value > 0]
        better = [each.pair.task for each in sure if each.pair.bound().value < 0]
        sure_of = {"worse": worse, "better": better}
        said = [f"surely {how} on {join_words(on)}" for how, on in sure_of.items() if on]
        rest = [each.pair.task for each in mine if each.adjusted > ALPHA]
        if rest:
            on = join_words(rest) if len(rest) <= MOST_NAMED else f"{len(rest)} tasks"
            said.append(f"not told apart from the 16-bit model on {on}")
        sentences.append(f"The {model} model is {join_words(said)}.")
    return sentences


def list_notes(tasks: Tasks, failed: Sequence[str], stale: Sequence[str]) -> list[str]:
    """What else has to be known: what had no partner, what is of an earlier recipe (`stale`), and
    what is no score of single samples."""
    notes = [f"Not paired: {why}." for why in dict.fromkeys(failed)]
    if stale:
        notes.append(
            f"The mixed model on {join_words(stale)} is of another recipe than the run has now: "
            "run it again."
        )
    for task in tasks.tasks:
        if REFERENCE in task.models:
            count = len(task.models[REFERENCE].samples)
            uneven = [n for n, each in task.models.items() if len(each.samples) != count]
            if uneven:
                notes.append(
                    f"{task.name}: only the samples that {join_words([REFERENCE, *uneven])} have "
                    "in common are paired."
                )
        notes += [f"{task.name}: {name} is left out: {why}." for name, why in task.left_out.items()]
    return notes


def write_how(tasks: Tasks) -> str:
    """How it was measured, in a line."""
    origins = dict.fromkeys(each.origin for task in tasks.tasks for each in task.models.values())
    return (
        f"By {join_words(list(origins))}. Where samples are right or wrong, p is McNemar's exact "
        "test; else Student's t. The last column is p after Holm's correction for all tasks."
    )
