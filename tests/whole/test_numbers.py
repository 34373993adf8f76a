"""What every number of a run counts: the sample's, against numpy on its tokens and against the
headers of the files that its model is in, and what pages, terminal and reports say of them."""

import io
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from awqscope.app.report.contents import read_findings
from awqscope.app.report.page import write_page
from awqscope.app.store import Store
from awqscope.app.terminal.run import show_run
from awqscope.app.words.predict import find_bits
from awqscope.app.words.provenance import provenance_facts
from awqscope.app.words.run import headline_tiles
from awqscope.diagnose.runs.directory import RunDirectory
from tests.help.runs import SAMPLE, parse_record, read_sample, write_comparison

MODEL = SAMPLE.parent.parent / "examples" / "demo"
RECORD = read_sample()
HEADLINE = RECORD["headline"]


def read_header(path: Path) -> dict[str, Any]:
    """A safetensors file's tensors, by no code of ours."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        found: dict[str, Any] = json.loads(file.read(length))
    found.pop("__metadata__", None)
    return found


SHAPES = {name: t["shape"] for name, t in read_header(MODEL / "model.safetensors").items()}
# The linears of the blocks, which are what is quantized.
LINEARS = {n: s for n, s in SHAPES.items() if ".layers." in n and len(s) == 2}


def quantized_bytes(shape: list[int], bits: int) -> int:
    """A packed linear in groups of 128: codes, scales of 16 bits, zero points of its width where it
    has them (4 bits asymmetric, 8 bits symmetric), and its shape, two numbers of 64 bits."""
    weights, groups = math.prod(shape), shape[0] * shape[1] // 128
    zeros = groups * bits // 8 if bits == 4 else 0
    return weights * bits // 8 + groups * 2 + zeros + 16


def scored() -> Any:
    """The sample's scored tokens: all but each window's first."""
    tokens = pq.read_table(SAMPLE / "tokens.parquet").to_pandas()
    return tokens[tokens["position"] > 0]


def show() -> str:
    out = io.StringIO()
    show_run(RunDirectory(SAMPLE), Console(file=out, width=160, highlight=False))
    return out.getvalue()


def tiles(record: dict[str, Any] = RECORD) -> dict[str, tuple[str, str]]:
    return {tile.label: (tile.value, tile.note) for tile in headline_tiles(parse_record(record))}


def line(text: str, label: str) -> list[str]:
    """The words after a label, of the line that begins with it."""
    (found,) = (each for each in text.splitlines() if each.strip().startswith(f"{label} "))
    return found.strip().removeprefix(label).split()


def test_tokens_are_those_that_are_scored() -> None:
    definition, tokens = RECORD["ppl_definition"], scored()
    assert len(tokens) == definition["windows"] * (definition["seq_len"] - 1) == 10_200
    assert definition["scored_tokens"] == len(tokens)
    assert tokens[["kl_uniform", "kl_mixed", "nll_reference"]].notna().all().all()
    assert "(10,200 tokens scored)" in provenance_facts(parse_record(RECORD))["Perplexity"]
    assert "10,200 tokens scored of" in " ".join(show().split())


@pytest.mark.parametrize("model", ["uniform", "mixed"])
def test_perplexity_and_kl_are_means_over_the_scored_tokens(model: str) -> None:
    tokens = scored().astype({f"nll_{model}": float, f"kl_{model}": float, "nll_reference": float})
    ppl, reference = (math.exp(tokens[f"nll_{name}"].mean()) for name in (model, "reference"))
    kl, name = tokens[f"kl_{model}"].mean(), {"uniform": "4-bit"}.get(model, model)
    found = tiles()
    assert found[f"Perplexity, {name}"][0] == f"{ppl:.3f}"
    assert found[f"Perplexity, {name}"][1].startswith(f"Δ {ppl - reference:+.3f} ")
    assert found["Perplexity, 16-bit"][0] == f"{reference:.3f}"
    assert found[f"KL, {name}"][0] == f"{kl:.4f}"
    assert found[f"KL, {name}"][1].startswith("nats a token ")
    column = ("uniform", "mixed").index(model)
    said = show()
    assert line(said, "perplexity")[column + 1] == f"{ppl:.3f}"
    assert line(said, "KL, mean (nats a token)")[column] == f"{kl:.5f}"
    p999 = np.quantile(tokens[f"kl_{model}"], 0.999)
    assert line(said, "KL, p99.9")[column] == f"{p999:.3f}"


def test_the_top_token_is_counted_for_both_models() -> None:
    tokens = scored()
    share = {name: tokens[f"agree_{name}"].astype(float).mean() for name in ("uniform", "mixed")}
    both = f"{share['uniform']:.1%} → {share['mixed']:.1%}"
    assert tiles()["Same top token"] == (both, "4-bit → mixed")
    changed = [round(100 * (1 - share[name])) for name in ("uniform", "mixed")]
    said = f"The likeliest token changed in {changed[0]} of 100 places; now in {changed[1]}."
    assert said in " ".join(show().split())
    assert line(show(), "same top token") == [f"{share['uniform']:.1%}", f"{share['mixed']:.1%}"]


def test_bytes_are_of_all_tensors_the_head_counted_once() -> None:
    """The sample's model is tied: its files hold the embedding and no head."""
    assert "lm_head.weight" not in SHAPES
    reference = sum(2 * math.prod(shape) for shape in SHAPES.values())
    saved = sum(2 * math.prod(s) - quantized_bytes(s, 4) for s in LINEARS.values())
    promoted = sum(
        quantized_bytes(s, 8) - quantized_bytes(s, 4)
        for n, s in LINEARS.items()
        if ".layers.5.self_attn." in n
    )
    uniform, mixed = reference - saved, reference - saved + promoted
    assert HEADLINE["bytes"] == {"reference": reference, "uniform": uniform, "mixed": mixed}
    assert tiles()["All weights, mixed"] == (
        f"{mixed / 1e6:.2f} MB",
        f"{mixed / uniform - 1:+.1%} on 4-bit, 16-bit {reference / 1e6:.2f} MB",
    )
    weights = sum(math.prod(shape) for shape in LINEARS.values())
    packed = sum(
        quantized_bytes(s, 8 if ".layers.5.self_attn." in n else 4) for n, s in LINEARS.items()
    )
    store = Store(SAMPLE.parent)
    bits = find_bits(store.grouped_scores(SAMPLE.name), store.recipe(SAMPLE.name))
    assert bits == pytest.approx(8 * packed / weights)
    shown = {tile.label: tile.note for tile in headline_tiles(parse_record(RECORD), bits)}
    assert shown["All weights, mixed"].endswith(f"; units at {bits:.2f} bits a weight")
    sizes = [f"{size / 1e6:.2f}" for size in (reference, uniform, mixed)]
    assert line(show(), "all weights") == [part for size in sizes for part in (size, "MB")]


def test_bytes_of_units_are_of_their_linears_alone() -> None:
    units = pq.read_table(SAMPLE / "units.parquet").to_pandas()
    for bits in (4, 8):
        expected = sum(quantized_bytes(shape, bits) for shape in LINEARS.values())
        assert units[units["bits"] == bits]["bytes"].sum() == expected
    attention = [s for n, s in LINEARS.items() if ".layers.5.self_attn." in n]
    row = pq.read_table(SAMPLE / "promotions.parquet").to_pandas().query("chosen")
    more = sum(quantized_bytes(s, 8) - quantized_bytes(s, 4) for s in attention)
    assert row["extra_bytes"].tolist() == [more]


def test_shares_say_what_they_are_of() -> None:
    tokens, found = scored(), tiles()
    kl = {name: tokens[f"kl_{name}"].astype(float).mean() for name in ("uniform", "mixed")}
    value, note = found["Recovered"]
    assert value == f"{1 - kl['mixed'] / kl['uniform']:.1%}"
    assert note.startswith("of the KL lost at 4-bit [")
    blocks = pq.read_table(SAMPLE / "blocks.parquet").to_pandas().query("view == 'isolated'")
    value, note = found["Additivity"]
    assert value == f"{blocks['kl'].sum() / kl['uniform']:.2f}"
    assert note == "the blocks' KL, summed, of the whole's"


def test_a_report_and_a_comparison_say_the_same(tmp_path: Path) -> None:
    said = write_page(read_findings(SAMPLE))
    for label, (value, note) in tiles().items():
        assert f"<dt>{label}</dt>" in said and f'<span class="value">{value}</span>' in said
        assert note.replace("'", "&#39;") in said
    record = json.loads((write_comparison(tmp_path) / "run.json").read_text(encoding="utf-8"))
    found = tiles(record)
    mixed = tiles()
    assert found["Perplexity, candidate"] == mixed["Perplexity, mixed"]
    assert found["All weights, candidate"][0] == mixed["All weights, mixed"][0]
    _, _, agree = mixed["Same top token"][0].rpartition(" → ")
    assert found["Same top token"] == (agree, "candidate")
