"""Greedy continuations against transformers' own `generate` on models built whole."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from awqscope.diagnose.explain.greedy import decode_held, decode_streamed, find_ends, fits_in_memory
from awqscope.diagnose.trials.finished import OpenedRun, open_run
from tests.help.searched import build_whole, write_searched_run

TOKENS = 12
PROMPTS = [[40], [60, 61, 62, 63, 64, 65], [100, 90, 80, 70]]


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def opened(
    request: pytest.FixtureRequest,
    make_model: Callable[..., Path],
    text_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> OpenedRun:
    folder = tmp_path_factory.mktemp("greedy")
    path = make_model(request.param)
    return open_run(write_searched_run(folder / "run", path, text_file), None)


def generate(whole: PreTrainedModel, prompt: Sequence[int]) -> list[int]:
    given = torch.tensor([list(prompt)])
    answer = whole.generate(
        given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=TOKENS
    )
    return answer[0, len(prompt) :].tolist()


@pytest.mark.parametrize("decode", [decode_held, decode_streamed])
def test_continuations_are_those_that_generate_gives(opened: OpenedRun, decode: Callable) -> None:
    models = {name: opened.models[name] for name in ("reference", "uniform")}
    searches = opened.run.searches
    found = decode(opened.model, PROMPTS, models, searches, TOKENS)
    for name, bits in models.items():
        whole = build_whole(opened.model, searches, bits)
        assert found[name] == [generate(whole, prompt) for prompt in PROMPTS], name
    assert found["reference"] != found["uniform"]


def test_a_continuation_ends_with_the_end_of_the_text(
    make_model: Callable[..., Path], text_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    shutil.copytree(make_model("llama"), path)
    run = write_searched_run(tmp_path / "run", path, text_file)
    free = open_run(run, None)
    models = {"reference": free.models["reference"]}
    text = decode_held(free.model, PROMPTS[1:2], models, run.searches, TOKENS)["reference"][0]
    end = text[3]
    settings = path / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token_id": [0, end]}))
    assert find_ends(free.model) == {0, end}
    cut = text[: text.index(end) + 1]
    for decode in (decode_held, decode_streamed):
        found = decode(free.model, PROMPTS[1:2], models, run.searches, TOKENS)
        assert found["reference"] == [cut]


def test_what_fits(opened: OpenedRun) -> None:
    count = sum(parameter.numel() for parameter in opened.model.shell.parameters())
    assert not fits_in_memory(opened.model, 4 * count)
    assert fits_in_memory(opened.model, 4 * 8 * count)
