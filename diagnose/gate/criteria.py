"""What a release can be held to: every number that a policy may limit, as data."""

import math
from dataclasses import dataclass
from typing import Any

PROOF, LOST = "proof", "lost"
# TOML's integers have no bound, floats have.
HUGE = 10**300


@dataclass(frozen=True)
class Criterion:
    """Something that can be limited.

    key: its name in the policy's `section`. measure: the number it limits, by its name in an
    `Evidence`. least, most: what a limit can be; `open_least`: but not `least` itself. upper:
    whether the limit is the largest value allowed, or the smallest. form: how its numbers are
    written, a format specification, PROOF for yes or no, or LOST for a share that was lost, which
    is written as points won. said: what the number is called in a sentence; `title` where it is the
    same.
    """

    section: str
    key: str
    measure: str
    title: str
    meaning: str
    least: float
    most: float = math.inf
    open_least: bool = False
    upper: bool = True
    form: str = ".4f"
    said: str = ""

    @property
    def spoken(self) -> str:
        """What the number is called in a sentence."""
        return self.said or self.title

    @property
    def is_demand(self) -> bool:
        """Whether it is asked for or not, without a number."""
        return self.form == PROOF

    @property
    def name(self) -> str:
        """Section and key: the limit's name in every output."""
        return f"{self.section}.{self.key}"


_LIMITS = (
    Criterion(
        "limits",
        "max_ppl_ratio",
        "ppl_ratio",
        "PPL ratio",
        "Perplexity over the reference's. A limit below 1 would ask for a better model.",
        1,
    ),
    Criterion(
        "limits",
        "max_delta_ppl",
        "delta_ppl",
        "ΔPPL",
        "Perplexity less the reference's.",
        0,
        form="+.3f",
    ),
    Criterion(
        "limits",
        "max_kl",
        "kl",
        "KL, mean",
        "Mean KL, nats a token.",
        0,
        form=".5f",
        said="mean KL",
    ),
    Criterion(
        "limits",
        "max_kl_p999",
        "kl_p999",
        "KL, p99.9",
        "The KL that one token in a thousand exceeds, nats.",
        0,
        said="p99.9 of KL",
    ),
    Criterion(
        "limits",
        "min_top1_agreement",
        "top1_agreement",
        "Same top token",
        "Share of tokens whose likeliest next token is the reference's.",
        0,
        1,
        upper=False,
        form=".2%",
        said="same top token",
    ),
    Criterion(
        "limits",
        "max_rms_delta_p",
        "rms_delta_p",
        "Δp, RMS",
        "Root mean square of Δp, by how much the probability of the right token changes.",
        0,
        1,
        form=".2%",
    ),
    Criterion(
        "limits",
        "max_slice_ppl_ratio",
        "slice_ppl_ratio",
        "PPL ratio, worst text",
        "As the PPL ratio, for each text of the run.",
        1,
        said="PPL ratio of the worst text",
    ),
    Criterion(
        "limits",
        "max_slice_kl",
        "slice_kl",
        "KL, worst text",
        "As the mean KL, for each text of the run.",
        0,
        form=".5f",
        said="KL of the worst text",
    ),
    Criterion(
        "limits",
        "max_block_share",
        "block_share",
        "KL share, worst block",
        "Isolated KL of a block over the sum of all blocks'.",
        0,
        1,
        open_least=True,
        form=".1%",
        said="KL share of the worst block",
    ),
    Criterion(
        "limits",
        "max_size_ratio",
        "size_ratio",
        "Size ratio",
        "Bytes of all weights over the reference's.",
        0,
        1,
        open_least=True,
        said="size ratio",
    ),
    Criterion(
        "limits",
        "min_range_margin",
        "range_margin",
        "Range margin",
        "The largest number of the served type over the largest activation, in float32.",
        0,
        open_least=True,
        upper=False,
        form=".3g",
        said="range margin",
    ),
    Criterion(
        "limits",
        "require_proof",
        "proof",
        "Proof",
        "The checkpoint was measured from disk, is what the recipe says, and answers in its type.",
        1,
        1,
        upper=False,
        form=PROOF,
        said="the proof",
    ),
)
_DRIFT = (
    Criterion(
        "drift",
        "max_ppl_ratio",
        "ppl_drift",
        "PPL, to baseline",
        "Perplexity over that of the baseline's model.",
        0,
        open_least=True,
        said="PPL over the baseline's",
    ),
    Criterion(
        "drift",
        "max_kl_ratio",
        "kl_drift",
        "KL, to baseline",
        "Mean KL over the baseline's.",
        0,
        open_least=True,
        form=".3f",
        said="KL over the baseline's",
    ),
    Criterion(
        "drift",
        "max_kl_p999_ratio",
        "kl_p999_drift",
        "KL p99.9, to baseline",
        "p99.9 of KL over the baseline's.",
        0,
        open_least=True,
        form=".3f",
        said="p99.9 of KL over the baseline's",
    ),
    Criterion(
        "drift",
        "max_top1_drop",
        "top1_drop",
        "Same top token, to baseline",
        "Top-1 agreement of the baseline less this run's: 0.005 is half a point.",
        0,
        1,
        form=LOST,
        said="same top token, to the baseline's,",
    ),
    Criterion(
        "drift",
        "max_size_ratio",
        "size_drift",
        "Size, to baseline",
        "Bytes of all weights over the baseline's.",
        0,
        open_least=True,
        said="size over the baseline's",
    ),
)
SECTIONS = {"limits": _LIMITS, "drift": _DRIFT}
# Of each task, which is known only where a run is.
TASKS = "tasks"
MAX_DROP = Criterion(
    TASKS,
    "max_drop",
    "task_drop",
    "Task",
    "Mean score of the reference less the model's, on the samples of each task: 0.02 is two "
    "points of accuracy.",
    0,
    1,
    form=LOST,
)


def find_problem(criterion: Criterion, value: Any, called: str = "") -> tuple[str, str] | None:
    """Why a value cannot be this limit, and the remedy; None if it can. called: what the limit is
    called where its key is not seen."""
    key = called or criterion.key
    if criterion.form == PROOF:
        return None if isinstance(value, bool) else (f"{key} is {value!r}", "give true or false")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{key} is {value!r}", "give a number"
    if isinstance(value, int):
        value = max(-HUGE, min(value, HUGE))
    if not math.isfinite(value):
        return f"{key} is {value}", "give a finite number"
    low = value <= criterion.least if criterion.open_least else value < criterion.least
    if low or value > criterion.most:
        above = "above" if criterion.open_least else "at least"
        bounds = f"{above} {criterion.least:g}"
        bounds += f" and at most {criterion.most:g}" if criterion.most < math.inf else ""
        example = " (a share: 0.9 is 90%)" if criterion.most == 1 and value > 1 else ""
        return f"{key} is {value:g}, which no run can be held to", f"give {bounds}{example}"
    return None
