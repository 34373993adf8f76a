"""What a measurement is made on."""

from datetime import UTC, datetime

import torch

from examples.benchmarks.on_gpu.process import Note
from examples.benchmarks.on_gpu.setting import Setting
from examples.benchmarks.others import describe_machine, list_versions, read_commit


def describe(setting: Setting, note: Note) -> None:
    """The machine, its versions, the commit, and the device's memory; `has_gpu` says whether torch
    finds one."""
    note("has_gpu", torch.cuda.is_available())
    note("day", f"{datetime.now(UTC):%Y-%m-%d}")
    note("commit", read_commit())
    note("machine", describe_machine())
    note("versions", list_versions())
    if setting.on_gpu and torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info(torch.device(setting.device))
        note("device_name", torch.cuda.get_device_name(setting.device))
        note("free_bytes", free)
        note("total_bytes", total)
