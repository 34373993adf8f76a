"""Records of earlier schemas, brought up to this one when they are read."""

from collections.abc import Mapping
from typing import Any, Final

# 1: until November 2026. A comparison's candidate is in the uniform model's place; the plan of the
#    sweep is `plan`, the stage `exact` is `refine`; runs have no `kind`.
# 2: a comparison's candidate is called what it is; `sweep`; every record has a `kind`.
SCHEMA: Final = 2
# Entries of a headline by model.
BY_MODEL = (
    *("ppl", "delta_ppl", "kl", "kl_interval", "kl_p99", "kl_p999", "top1_agreement"),
    *("bytes", "range"),
)


def bring_up(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of any schema up to this one as this one has it. What is damaged stays so: whoever
    reads it says what is wrong."""
    found = dict(record)
    if found["schema"] == 1:
        found = _from_1(found)
    return found | {"schema": SCHEMA}


def _from_1(record: dict[str, Any]) -> dict[str, Any]:
    found = {"kind": "run", **record}
    if "plan" in found:
        found["sweep"] = found.pop("plan")
    for entry in ("stages", "chunks"):
        if isinstance(found.get(entry), dict):
            found[entry] = {_rename_stage(name): value for name, value in found[entry].items()}
    if isinstance(found.get("memory_plan"), dict):
        found["memory_plan"] = _complete_plan(found["memory_plan"])
    if found["kind"] == "compare" and isinstance(found.get("headline"), dict):
        found["headline"] = {
            entry: _name_candidate(value) if entry in BY_MODEL else value
            for entry, value in found["headline"].items()
        }
    return found


def _rename_stage(name: Any) -> Any:
    return "exact" if name == "refine" else name


def _name_candidate(numbers: Any) -> Any:
    """The numbers of a comparison by model, the candidate's by its own name."""
    if not isinstance(numbers, dict) or "uniform" not in numbers:
        return numbers
    others = {name: value for name, value in numbers.items() if name not in ("uniform", "mixed")}
    return {**others, "candidate": numbers["uniform"]}


def _complete_plan(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan with what the first versions did not work out: with one process a machine, and as
    much besides streams whatever the budget."""
    stages = plan.get("stages")
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        return plan
    stages = [
        {
            "least_bytes": stage.get("fixed_bytes"),
            **stage,
            "stage": _rename_stage(stage.get("stage")),
        }
        for stage in stages
    ]
    seconds = [stage.get("seconds") for stage in stages]
    whole = sum(each for each in seconds if isinstance(each, int | float))
    return {"sharing": 0, "seconds": whole, **plan, "stages": stages}
