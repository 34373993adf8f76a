"""Models of several searches, against transformers' own forward with weights put in by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.studies.calibration.measuring import (
    Measured,
    join_windows,
    measure_uniforms,
)
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.scheme import Scheme
from tests.help.searched import build_whole

MakeModel = Callable[..., Path]
SCHEME = Scheme(4, 64, False)
KEPT = frozenset({"1.o"})


@pytest.fixture(scope="module")
def searched(
    make_model: MakeModel, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SourceModel, torch.Tensor, dict[str, Path]]:
    """A model, windows to measure on, and searches on two parts of the others."""
    path, folder = make_model("llama"), tmp_path_factory.mktemp("searches")
    model = open_model(str(path))
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(path), 40, 12)
    folders = {"one": folder / "one", "other": folder / "other"}
    for name, part in zip(folders, (windows[4:8], windows[8:12]), strict=True):
        search_model(model, part, [SCHEME], folders[name], exact=False)
    return model, windows[:4], {**folders, "again": folders["one"]}


def measure(searched: tuple[SourceModel, torch.Tensor, dict[str, Path]]) -> Measured:
    model, windows, folders = searched
    pairs = [("one", "other"), ("other", "one"), ("one", "again")]
    return measure_uniforms(model, windows, folders, pairs, bits=4, kept=KEPT)


def test_it_is_transformers_forward(
    searched: tuple[SourceModel, torch.Tensor, dict[str, Path]],
) -> None:
    model, windows, folders = searched
    found = measure(searched)
    units = {f"{n}.{kind.name}": 4 for n in range(model.blocks) for kind in model.family.units}
    units |= dict.fromkeys(KEPT, 16)
    wholes = {"reference": build_whole(model, folders["one"], {})}
    wholes |= {name: build_whole(model, folders[name], units) for name in ("one", "other")}
    with torch.no_grad():
        logs = {
            name: whole(windows).logits[:, :-1].double().log_softmax(-1).numpy()
            for name, whole in wholes.items()
        }

    def divergence(p: str, q: str) -> np.ndarray:
        return (np.exp(logs[p]) * (logs[p] - logs[q])).sum(-1).mean(1)

    for name in ("one", "other"):
        np.testing.assert_allclose(found.kl[name], divergence("reference", name), rtol=2e-3)
        targets = windows[:, 1:, None].numpy()
        nll = -np.take_along_axis(logs[name], targets, -1)[..., 0].mean(1)
        np.testing.assert_allclose(found.nll[name], nll, rtol=1e-4)
    for pair in (("one", "other"), ("other", "one")):
        np.testing.assert_allclose(found.apart[pair], divergence(*pair), rtol=2e-3)
    assert found.apart["one", "other"].min() > 0


def test_one_search_under_two_names_is_one_model(
    searched: tuple[SourceModel, torch.Tensor, dict[str, Path]],
) -> None:
    found = measure(searched)
    assert (found.apart["one", "again"] == 0).all()
    assert found.kl["again"].tolist() == found.kl["one"].tolist()


def test_parts_are_the_whole_to_the_last_bit(
    searched: tuple[SourceModel, torch.Tensor, dict[str, Path]],
) -> None:
    found = measure(searched)
    parts = [Measured.from_json(found.cut(slice(n, n + 2)).to_json()) for n in (0, 2)]
    assert join_windows(parts).to_json() == found.to_json()
