"""A task that does no work, in a module of its own: a worker elsewhere imports it by this name, and
the `__main__` of a benchmark is not the worker's."""

import time

import torch

from awqscope.diagnose.machine.tasks import OnStep


def rest(device: torch.device, on_step: OnStep) -> None:
    """The work of a task that leaves its process with everything imported."""
    import awqscope.diagnose.stages.pipeline  # noqa: F401

    time.sleep(1)
