"""On how many windows blocks were measured, in words."""

from typing import Any

import pytest

from awqscope.app.words.provenance import provenance_facts
from awqscope.app.words.texts import write_sample
from awqscope.diagnose.entries.stages import SweepPlan
from awqscope.diagnose.runs.record import AnyRecord
from tests.help.runs import parse_record, read_sample


def record(spec: dict[str, Any], **sweep: Any) -> AnyRecord:
    """The record of the sample, of 40 windows, with another sweep."""
    found = parse_record(read_sample())
    return found.changed(spec=found.spec.change(**spec), sweep=SweepPlan(control_kl=0.0, **sweep))


@pytest.mark.parametrize(
    ("spec", "sweep", "said"),
    [
        ({}, {}, ""),
        (
            {"sweep": "fast"},
            {"looks": [16], "isolated_error": 0.031, "narrowed": 2.16},
            "measured on 16 of 40 windows, drawn at random, until every flag was sure; what all "
            "cost alone, together, is known to ±3.1%, 2.2 times narrower by the uniform KL of "
            "every window",
        ),
        (
            {"sweep": "fast", "sweep_windows": 32},
            {"looks": [16, 32], "isolated_error": 0.031, "narrowed": 1.0},
            "measured on 16 to 32 of 40 windows, drawn at random; what all cost alone, together, "
            "is known to ±3.1%",
        ),
        (
            {"sweep": "fast"},
            {"looks": [16, 32, 40]},
            "measured on 16 to 40 of 40 windows, drawn at random, until every flag was sure",
        ),
    ],
)
def test_what_is_said(spec: dict[str, Any], sweep: dict[str, Any], said: str) -> None:
    found = record(spec, **sweep)
    assert write_sample(found) == said
    assert provenance_facts(found).get("Blocks", "") == said
