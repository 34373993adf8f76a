"""Requests as a form would make them."""

from typing import Any

from awqscope.app.dashboard.jobs.requests import Request
from awqscope.diagnose.runs.spec import AnySpec, CompareSpec, RunSpec


def request_for(kind: type[AnySpec], **fields: Any) -> Request:
    """A request whose fields hold these values; the others are as by default."""
    return Request(kind, fields.pop("name", ""), fields)


def run_request(**fields: Any) -> Request:
    """A request for a run."""
    return request_for(RunSpec, **fields)


def compare_request(**fields: Any) -> Request:
    """A request for a comparison."""
    return request_for(CompareSpec, **fields)
