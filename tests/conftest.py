"""Tiny models and texts that every test can make in a second."""

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from transformers import AutoModelForCausalLM

from examples.train_model import train_tokenizer
from tests.help.tiny import TEXT, VOCABULARY, tiny_config

pytest_plugins = ["tests.help.browsing"]
# No test may depend on how fast the machine is, or on what else it does meanwhile.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
# By processes that tests were handed out to.
TRIED: dict[str, Counter[str]] = {}


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of some 4,000 tokens."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves a random model of a family, with uneven channels as trained ones have, and its
    tokenizer; the same arguments give the same directory, which tests must not write to."""
    tokenizer = train_tokenizer([TEXT], VOCABULARY)
    made: dict[str, Path] = {}

    def make(family: str, dtype: torch.dtype = torch.float16, **changes: object) -> Path:
        key = json.dumps([family, str(dtype), changes], sort_keys=True)
        if key not in made:
            torch.manual_seed(3)
            near_one = torch.Generator().manual_seed(4)
            model = AutoModelForCausalLM.from_config(tiny_config(family, **changes))
            model = model.to(torch.float32)
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.data *= torch.exp(0.7 * torch.randn(parameter.shape[-1]))
                    parameter.data *= 2.0
                else:
                    # Norms that are all ones would let two that a block has pass for each other.
                    parameter.data *= 1 + 0.1 * torch.randn(parameter.shape, generator=near_one)
            path = tmp_path_factory.mktemp(family)
            model.to(dtype).save_pretrained(path)
            tokenizer.save_pretrained(path)
            made[key] = path
        return made[key]

    return make


def read_tallies() -> dict[str, Counter[str]]:
    """What was tried in this process, by what it is called."""
    modules = {"faults": "tests.whole.test_faults", "inputs": "tests.whole.test_fuzz"}
    found = {what: getattr(sys.modules.get(name), "TALLY", None) for what, name in modules.items()}
    return {what: tally for what, tally in found.items() if tally}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of several says what it tried to the one that hands out tests."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["tallies"] = {what: dict(tally) for what, tally in read_tallies().items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    for what, tally in getattr(node, "workeroutput", {}).get("tallies", {}).items():
        TRIED.setdefault(what, Counter()).update(tally)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many faults were tried and inputs were made up, where any were."""
    for what, tally in {**TRIED, **read_tallies()}.items():
        counts = ", ".join(f"{count:,} {name}" for name, count in tally.items())
        terminalreporter.write_line(f"{what}: {counts}")
