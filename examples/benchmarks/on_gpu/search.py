"""The AWQ search at a real shape beside stock autoawq's, on one block."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from awqscope.diagnose.machine.memory import device_peak_bytes, forget_peak
from awqscope.mixedprec.awq.autoawq import MendedQuantizer, quantize_with_autoawq
from awqscope.mixedprec.awq.search import search_model, take_enough
from examples.benchmarks.on_gpu.process import Note
from examples.benchmarks.on_gpu.setting import Setting
from examples.benchmarks.on_gpu.shape import (
    choose_shape,
    fit_calibration,
    make_model,
    plan_bytes,
    refuse_unfitting,
)
from examples.benchmarks.shapes import SCHEME, draw_tokens, time_once

SEARCHED = 1


def measure_search(name: str, setting: Setting, note: Note) -> None:
    """Seconds of the search as a run makes it, of stock autoawq, and of the search with its very
    choices.

    Of a run's the first call is left out on a GPU, which is where kernels are loaded.
    """
    device = torch.device(setting.device)
    shape = fit_calibration(choose_shape(name, setting), SEARCHED, device)
    windows = draw_tokens(shape, *shape.calibration)
    fewer = take_enough(windows)
    folder = setting.folder / f"search-{name}"
    model = make_model(shape, SEARCHED, folder, device)
    planned = plan_bytes("search", model, fewer, shape.validation, 2)
    refuse_unfitting("the search", planned, device)
    note("blocks", shape.blocks)
    note("measured_blocks", SEARCHED)
    note("tokens", windows.numel())
    note("read_tokens", fewer.numel())
    note("planned_bytes", planned)

    def search(tokens: torch.Tensor, exact: bool, out: str) -> Callable[[], None]:
        return partial(
            search_model, model, tokens, [SCHEME], Path(folder) / out, exact=exact, device=device
        )

    if device.type == "cuda":
        search(fewer, False, "first")()
    forget_peak()
    note("seconds", time_once(device, search(fewer, False, "fast")))
    note("peak_bytes", device_peak_bytes() if device.type == "cuda" else None)
    whole = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float16).to(device)
    stock = partial(quantize_with_autoawq, whole, "llama", windows, SCHEME, MendedQuantizer)
    note("stock_seconds", time_once(device, stock))
    # Last, as there is no aim for it.
    note("exact_seconds", time_once(device, search(windows, True, "exact")))
