"""What is aimed at, held against what was measured: a row each, whether it was measured or not.
Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from examples.benchmarks.on_gpu.process import DONE, Outcome

Figures = Mapping[str, Any]
GIB = 2**30
MOST_DIFFERENCE = 1e-4
LEAST_FASTER = 5.0
MOST_OF_FLOOR = 1.3
# What is published of other tools at 8B.
PUBLISHED = "published of 8B: llm-compressor about 30 min, auto-round about 15 min"


@dataclass(frozen=True)
class Aim:
    """A row. wanted: the aim, in words; empty for what is only told. say: the finding in words, and
    holds: whether it is what is wanted, from the part's figures, None without a device to tell it
    of; KeyError or TypeError where they lack it."""

    name: str
    part: str
    wanted: str
    say: Callable[[Figures], str]
    holds: Callable[[Figures], bool | None] | None = None


@dataclass(frozen=True)
class Row:
    """An aim with what came of it. met: None where nothing is aimed at or nothing was measured."""

    name: str
    part: str
    wanted: str
    found: str
    met: bool | None


def find_flags(figures: Figures) -> tuple[list[int], list[int]]:
    """The blocks flagged on the CPU and on the device."""
    return figures["flagged_run-cpu"], figures["flagged_run-device"]


def say_choices(figures: Figures) -> str:
    """How much differs where each device searches for itself."""
    counts = figures["choices"]
    return (
        f"KL of a view differs by {figures['kl_difference_own_searches']:.1e} at most; "
        f"{counts['equal_scales']} of {counts['scales']} scale vectors and "
        f"{counts['equal_clips']} of {counts['clips']} clips alike"
    )


def tightest_stage(figures: Figures) -> tuple[int | None, int]:
    """Peak and plan of the stage that comes nearest to its plan, or goes furthest beyond."""
    stages = figures["stage_bytes"].values()
    peak, planned = max(stages, key=lambda stage: (stage[0] or 0) - stage[1])
    return peak or None, planned


def say_noise(precision: str, figures: Figures) -> str:
    """What the reference seems to cost itself in a lower precision."""
    return f"mean KL {figures[precision]:.1e} nats a token of the reference to itself"


def faster(figures: Figures, ours: str) -> float:
    """How many times longer stock autoawq takes."""
    return float(figures["stock_seconds"] / figures[ours])


def say_search(figures: Figures, ours: str, tokens: str) -> str:
    """Ratio, and minutes of all blocks as extrapolated."""
    times = figures["blocks"] / figures["measured_blocks"] / 60
    return (
        f"{faster(figures, ours):.1f}x, measured on {figures['measured_blocks']} of "
        f"{figures['blocks']} blocks; extrapolated to all: ours {times * figures[ours]:.1f} min "
        f"on {figures[tokens]:,} tokens, stock {times * figures['stock_seconds']:.1f} min on "
        f"{figures['tokens']:,}"
    )


def in_default(figures: Figures) -> Figures:
    """A sweep's figures in the precision that a run computes in."""
    found: Figures = figures[figures["default"]]
    return found


def say_sweep(figures: Figures, found: Figures) -> str:
    """The ratio, and what it is from."""
    return (
        f"{found['ratio']:.2f}x ({found['blocks_ratio']:.2f}x for the blocks alone), extrapolated "
        f"from {figures['measured_blocks']} of {figures['blocks']} blocks and "
        f"{found['measured_windows']} of {figures['windows']} windows of {figures['length']} "
        f"tokens; of all: {found['extrapolated_seconds'] / 60:.1f} min at "
        f"{found['rate'] / 1e12:.3g} TFLOP/s"
    )


def say_peak(peak: int | None, planned: int) -> str:
    """Peak beside plan."""
    held = "none held of a device" if peak is None else f"{peak / GIB:.2f} GiB held"
    return f"{held}, {planned / GIB:.2f} GiB planned"


def is_within(peak: int | None, planned: int) -> bool | None:
    """Whether a peak is as planned; None without a device."""
    return None if peak is None else peak <= planned


def list_search_aims(shape: str) -> list[Aim]:
    """The rows of the search at a shape."""
    part, published = f"search-{shape}", f"; {PUBLISHED}" if shape == "8b" else ""
    return [
        Aim(
            f"search at {shape.upper()}, as a run makes it, beside stock autoawq",
            part,
            f"at least {LEAST_FASTER:g}x",
            lambda found: say_search(found, "seconds", "read_tokens") + published,
            lambda found: faster(found, "seconds") >= LEAST_FASTER,
        ),
        Aim(
            f"search at {shape.upper()}, with autoawq's very choices",
            part,
            "",
            lambda found: say_search(found, "exact_seconds", "tokens"),
        ),
        Aim(
            f"device memory of the search at {shape.upper()}",
            part,
            "at most the plan's",
            lambda found: say_peak(found["peak_bytes"], found["planned_bytes"]),
            lambda found: is_within(found["peak_bytes"], found["planned_bytes"]),
        ),
    ]


def list_aims() -> list[Aim]:
    """Every row of the table."""
    return [
        Aim(
            "flagged blocks of the demo, device against CPU",
            "equality",
            "equal",
            lambda found: "{1} on the device, {0} on the CPU".format(*find_flags(found)),
            lambda found: find_flags(found)[0] == find_flags(found)[1],
        ),
        Aim(
            "KL of every view of the demo in float32, with the CPU's search",
            "equality",
            f"within {MOST_DIFFERENCE:g}, relative",
            lambda found: f"{found['kl_difference']:.1e}",
            lambda found: found["kl_difference"] <= MOST_DIFFERENCE,
        ),
        Aim("the same, each with its own search", "equality", "", say_choices),
        Aim(
            "device memory of the demo's run",
            "equality",
            "at most the plan's",
            lambda found: say_peak(*tightest_stage(found)),
            lambda found: is_within(*tightest_stage(found)),
        ),
        *(
            Aim(f"noise floor of {precision}", "noise", "", partial(say_noise, precision))
            for precision in ("tf32", "bfloat16")
        ),
        *list_search_aims("1b"),
        *list_search_aims("8b"),
        Aim(
            "sweep at 8B in the default precision, of its floor",
            "sweep-8b",
            f"at most {MOST_OF_FLOOR:g}x",
            lambda found: f"{found['default']}: {say_sweep(found, in_default(found))}",
            lambda found: in_default(found)["ratio"] <= MOST_OF_FLOOR,
        ),
        Aim(
            "sweep at 8B in tf32, of its floor",
            "sweep-8b",
            "",
            lambda found: say_sweep(found, found["tf32"]),
        ),
        Aim(
            "device memory of the sweep at 8B",
            "sweep-8b",
            "at most the plan's",
            lambda found: say_peak(in_default(found)["peak_bytes"], found["planned_bytes"]),
            lambda found: is_within(in_default(found)["peak_bytes"], found["planned_bytes"]),
        ),
        Aim(
            "the demo's checkpoint in vLLM",
            "serving",
            "loads",
            lambda found: (
                f"vLLM {found['version']} loads it; NLL of a window {found['nll']:.4f}, here "
                f"{found['nll_here']:.4f}"
            ),
            lambda found: found["loaded"],
        ),
    ]


def judge(aim: Aim, outcome: Outcome | None) -> Row:
    """An aim's row. outcome: of its part; None as long as that was not begun."""
    if outcome is None:
        return Row(aim.name, aim.part, aim.wanted, "not measured yet", None)
    try:
        found = aim.say(outcome.figures)
        met = aim.holds(outcome.figures) if aim.holds else None
    except (KeyError, TypeError):
        reason = outcome.reason or "its part left it out"
        return Row(aim.name, aim.part, aim.wanted, f"not measured: {reason}", None)
    if outcome.state != DONE:
        found += f" (then {outcome.state}: {outcome.reason})"
    return Row(aim.name, aim.part, aim.wanted, found, met)


def write_table(rows: list[Row]) -> list[str]:
    """The rows in Markdown."""
    verdicts = {True: "met", False: "MISSED", None: "–"}
    lines = ["| what | aim | found | |", "|---|---|---|---|"]
    for row in rows:
        cells = (row.name, row.wanted or "–", row.found, verdicts[row.met])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines
