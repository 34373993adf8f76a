"""What a form will start, beside its button: the command, its result, and what it takes."""

from collections.abc import Mapping
from typing import Any

from dash import html

from awqscope.app.dashboard.jobs.plans import Planned, Plans
from awqscope.app.dashboard.jobs.processes import (
    find_reason,
    plan_command,
    run_command,
    write_command,
)
from awqscope.app.dashboard.jobs.requests import Request, list_fields
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.parts import command, notice, table
from awqscope.diagnose.runs.spec import CompareSpec
from awqscope.mixedprec.words import NOTHING, write_duration, write_memory

COLUMNS = {
    "stage": "Stage",
    "seconds": "Time",
    "memory": "Memory",
    "chunks": "Chunks of the text",
    "passes": "Passes over the weights",
    "files": "Streams in files",
}


def preview(jobs: Jobs, request: Request) -> list[Any]:
    """The command that a request starts, and what will happen; or why it cannot be started."""
    request = jobs.name_it(request)
    problems = jobs.check(request)
    if problems:
        labels = {key: option.shown.label for key, option in list_fields(request.kind).items()}
        missing = [f"{labels[key]}: {said}." for key, said in problems.items()]
        return [
            html.P("It cannot be started yet.", className="summary"),
            html.Ul([html.Li(said) for said in missing], className="claims"),
        ]
    out = jobs.store.root / request.name
    return [
        html.P(command(write_command(run_command(request, jobs.store.root)))),
        html.Ul([html.Li(said) for said in foretell(request, str(out))], className="claims"),
    ]


def foretell(request: Request, out: str) -> list[str]:
    """What a request will result in, in sentences."""
    spec = request.to_spec()
    texts = len(spec.valid)
    measured = "the validation text" if texts == 1 else f"{texts} validation texts"
    some = "" if spec.windows is None else f"{spec.windows} windows of "
    each = "each of " if some and texts > 1 else ""
    said = [f"Every number is measured on {some}{each}{measured}, and kept in {out}."]
    if isinstance(spec, CompareSpec):
        return [*said, "The candidate is measured block by block; no checkpoint is written."]
    if spec.no_checkpoint:
        return [*said, f"No checkpoint will be written: {spec.no_checkpoint}."]
    low, rescue = spec.bits, spec.rescue_bits
    return [
        *said,
        f"Every unit gets {low} bits, those that repair what stands out {rescue}; the checkpoint "
        f"goes to {out}/checkpoint and is measured again from disk.",
    ]


def show_plan(planned: Planned | None) -> Any:
    """What a run will take, as far as it is known."""
    if planned is None:
        return None
    if planned.state == "running":
        return html.P("◐ Working it out: the model is opened and the machine measured.")
    if planned.state == "failed" or planned.result is None:
        why = find_reason(planned.log)
        log = None if why else html.Pre(planned.log, tabIndex=0)
        return notice("It cannot be planned", html.P(why), log, tone="bad")
    plan = planned.result
    return html.Div([html.P(write_plan(plan)), table(COLUMNS, plan_rows(plan))])


def write_plan(plan: Mapping[str, Any]) -> str:
    """A plan in a sentence."""
    peak = max((stage["peak_bytes"] for stage in plan["stages"]), default=0)
    several = f", shared by {plan['workers']} processes" if plan["workers"] > 1 else ""
    return (
        f"About {write_duration(plan['seconds'])}, and {write_memory(peak)} of the "
        f"{write_memory(plan['budget'])} that it may hold{several}; "
        f"{write_memory(plan['minimum'])} is the least it could do with."
    )


def plan_rows(plan: Mapping[str, Any]) -> list[dict[str, str]]:
    """A plan as lines of a table."""
    return [
        {
            "stage": stage["stage"],
            "seconds": write_duration(stage["seconds"]),
            "memory": write_memory(stage["peak_bytes"]),
            "chunks": str(stage["chunks"]),
            "passes": str(stage["passes"]),
            "files": write_memory(stage["spilled_bytes"]) if stage["spilled_bytes"] else NOTHING,
        }
        for stage in plan["stages"]
    ]


def look_at_plan(jobs: Jobs, plans: Plans, request: Request, *, ask: bool) -> Planned | None:
    """The plan of a request: as far as it is known, or begun where it is asked for. None for a
    request that cannot be started."""
    request = jobs.name_it(request)
    if jobs.check(request):
        return None
    line = plan_command(request, jobs.store.root)
    return plans.ask(line) if ask else plans.look(line)
