"""Comparisons: their numbers against the run that made the candidate, and against models built
whole and run by transformers."""

import html
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.app.dashboard.jobs.processes import spec_command
from awqscope.app.dashboard.urls import link
from awqscope.app.words.compared.comparison import list_facts
from awqscope.diagnose.entries.headline import ComparedHeadline
from awqscope.diagnose.gate.evidence import read_numbers
from awqscope.diagnose.inputs.corpora import cut_windows, load_corpus, load_tokenizer
from awqscope.diagnose.options.execution import Execution
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.record import Comparison
from awqscope.diagnose.runs.scores import read_scores
from awqscope.diagnose.runs.spec import CompareSpec
from awqscope.diagnose.stages.comparison import run_comparison
from awqscope.diagnose.statistics.likelihood import TokenScores, prepare_reference, score
from awqscope.diagnose.sweep.branches import REFERENCE, UNIFORM, Sweep, block_branches
from awqscope.diagnose.sweep.one_pass import run_sweep
from awqscope.diagnose.sweep.whole_blocks import build_candidate_sweep
from awqscope.mixedprec.awq.search import search_model
from awqscope.mixedprec.checkpoints.writer import write_checkpoint
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.foreign.candidate import open_candidate
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.recipes.recipe import make_recipe
from awqscope.mixedprec.scheme import Scheme
from tests.app.dashboard.test_server import find_type, make_client, read_text, show
from tests.help.packed import write_gguf
from tests.mixedprec.foreign.test_candidate import change_config, change_tensors, copy_model

MakeModel = Callable[..., Path]
Swept = tuple[SourceModel, Path, dict[str, TokenScores]]
SCHEMES = {4: Scheme(4, 64, False)}
BLOCKS = 3
CHUNK = 4


@pytest.fixture(scope="module")
def reference(make_model: MakeModel) -> Path:
    return make_model("llama", num_hidden_layers=BLOCKS, dtype=torch.bfloat16)


@pytest.fixture
def spec(reference: Path, text_file: Path) -> CompareSpec:
    """A comparison in several chunks, of the reference with itself."""
    return CompareSpec(
        reference=str(reference),
        candidate=str(reference),
        valid=str(text_file),
        seq_len=64,
        windows=6,
        chunk_windows=CHUNK,
    )


@pytest.fixture(scope="module")
def swept(
    make_model: MakeModel, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Swept:
    """A model, its AWQ searches, and what the sweep of a run finds of it at 4 bits."""
    path, folder = make_model("llama", num_hidden_layers=BLOCKS), tmp_path_factory.mktemp("awq")
    model = open_model(str(path))
    windows = cut_windows(load_corpus(str(text_file)), load_tokenizer(path), 64, 6)
    search_model(model, windows[:2], list(SCHEMES.values()), folder)
    sweep = Sweep(4, (4,), frozenset(), folder, block_branches(model, 4, frozenset()))
    return model, folder, run_sweep(model, windows, sweep)


def compare(spec: CompareSpec, candidate: Path, out: Path) -> RunDirectory:
    changed = CompareSpec(**{**spec.to_json(), "candidate": str(candidate)})
    return run_comparison(changed, out, lambda *event: None)


def isolated(run: RunDirectory, view: str = "isolated") -> list[float]:
    """KL by block in one view."""
    rows = run.read_table("blocks").to_pylist()
    return [row["kl"] for row in rows if row["view"] == view]


def compared_headline(run: RunDirectory) -> ComparedHeadline:
    """The headline of a comparison that is done."""
    record = run.read()
    assert isinstance(record, Comparison)
    return record.measured


def read_windows(run: RunDirectory) -> Tensor:
    text = run.read().ppl_definition
    tokens = run.read_table("tokens")["token"].to_pylist()
    return torch.tensor(tokens).view(text.windows, text.seq_len)


@torch.no_grad()
def naive(path: Path, windows: Tensor, parts: dict[str, Tensor] = {}) -> tuple[Tensor, float]:
    """Logits of a model as transformers loads it with some parameters replaced, and its own loss,
    window by window, averaged."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    model.load_state_dict(parts, strict=False)
    logits = model(windows, use_cache=False).logits
    # Windows are of one length, so that the mean of all is the mean of theirs.
    return logits[:, :-1], model(windows, labels=windows, use_cache=False).loss.item()


def naive_kl(expected: Tensor, logits: Tensor, windows: Tensor) -> float:
    return float(score(prepare_reference(expected), logits, windows[:, 1:])[1].mean())


@pytest.mark.parametrize("fmt", ["awq", "compressed-tensors"])
def test_a_runs_checkpoint_compares_as_the_run_measured_it(
    fmt: str, spec: CompareSpec, swept: Swept, tmp_path: Path
) -> None:
    model, searches, expected = swept
    recipe, out = make_recipe("", model.family, BLOCKS, 4), tmp_path / "candidate"
    write_checkpoint(out, model, recipe, searches, SCHEMES, fmt=fmt)
    spec = CompareSpec(**{**spec.to_json(), "reference": model.name})
    run = compare(spec, out, tmp_path / "run")
    headline = compared_headline(run)
    assert headline.kl.candidate == pytest.approx(float(expected[UNIFORM].kl.mean()), rel=1e-3)
    ppl = [math.exp(expected[name].nll.double().mean()) for name in (REFERENCE, UNIFORM)]
    assert [headline.ppl.reference, headline.ppl.candidate] == pytest.approx(ppl, rel=1e-6)
    for row in run.read_table("blocks").to_pylist():
        there = expected[f"{row['view']}.{row['block']}"].kl.mean()
        assert row["kl"] == pytest.approx(float(there), rel=1e-3), row
    record = run.read()
    assert isinstance(record, Comparison)
    assert record.places == []
    assert record.candidate.bits == {"4": 7 * BLOCKS}
    served = "vLLM" if fmt == "awq" else "vLLM, SGLang and transformers"
    assert list_facts(record)["Served"].startswith(f"{served} load")
    # Norms took the scales: neither weights nor inputs of linears can be set side by side.
    assert run.read_table("weights").num_rows == 0
    for row in run.read_table("activations").to_pylist():
        assert (row["sqnr"] is not None) == (row["site"] == "output"), row


def test_one_block_perturbed(spec: CompareSpec, reference: Path, tmp_path: Path) -> None:
    candidate = copy_model(reference, tmp_path)
    torch.manual_seed(1)

    def perturb(name: str, tensor: Tensor) -> Tensor:
        here = name.startswith("model.layers.2.") and tensor.ndim > 1
        return tensor + (0.2 * tensor.std() * torch.randn(tensor.shape)).bfloat16() * here

    change_tensors(candidate, perturb)
    run = compare(spec, candidate, tmp_path / "run")
    headline, record = compared_headline(run), run.read()
    assert record.chunks["sweep"] < 6, "the sweep must take several chunks"
    kl = isolated(run)
    assert kl[2] > 1e-3
    assert [value for block, value in enumerate(kl) if block != 2] == [0.0] * (BLOCKS - 1)
    assert isolated(run, "restored")[2] == 0.0
    assert isolated(run, "cumulative")[:2] == [0.0, 0.0]
    assert record.sweep is not None and record.sweep.control_kl == 0.0
    assert headline.additivity == pytest.approx(1.0)
    windows = read_windows(run)
    logits, loss = naive(candidate, windows)
    expected, reference_loss = naive(reference, windows)
    assert headline.ppl.candidate == pytest.approx(math.exp(loss), rel=1e-5)
    assert headline.ppl.reference == pytest.approx(math.exp(reference_loss), rel=1e-5)
    kl_there = naive_kl(expected, logits, windows)
    assert headline.kl.candidate == pytest.approx(kl_there, rel=1e-3) == kl[2]
    stages = {name: entry.state for name, entry in record.stages.items()}
    assert stages.pop("sweep") == "done"
    assert set(stages.values()) == {"skipped"}
    weights = {(r["block"], r["linear"]): r for r in run.read_table("weights").to_pylist()}
    assert len(weights) == 7 * BLOCKS
    ours, theirs = (load_file(p / "model.safetensors") for p in (reference, candidate))
    for (block, linear), row in weights.items():
        name = f"model.layers.{block}.{linear}.weight"
        before, after = ours[name].float(), theirs[name].float()
        error = float((after - before).norm() / before.norm())
        assert row["relative_error"] == pytest.approx(error, rel=1e-5)
        assert (row["relative_error"] > 0) == (block == 2)
    units = run.read_table("units").to_pylist()
    assert [row["unit"] for row in units[:4]] == ["0.qkv", "0.o", "0.gate_up", "0.down"]
    assert {row["bits"] for row in units} == {16}
    assert units[1]["bytes"] == ours["model.layers.0.self_attn.o_proj.weight"].nbytes


def test_embeddings_and_head_are_places_of_their_own(
    spec: CompareSpec, reference: Path, tmp_path: Path
) -> None:
    """Against models built whole with only that place, or all but it, of the candidate's."""
    candidate = copy_model(reference, tmp_path)
    torch.manual_seed(2)
    change_tensors(candidate, lambda name, t: (t * (1 + 0.1 * torch.randn(t.shape))).bfloat16())
    run = compare(spec, candidate, tmp_path / "run")
    windows, record = read_windows(run), run.read()
    assert isinstance(record, Comparison)
    theirs = {k: v.float() for k, v in load_file(candidate / "model.safetensors").items()}
    ours = {k: v.float() for k, v in load_file(reference / "model.safetensors").items()}
    expected, _ = naive(reference, windows)

    def kl(path: Path, parts: dict[str, Tensor]) -> float:
        return naive_kl(expected, naive(path, windows, parts)[0], windows)

    def only(tensors: dict[str, Tensor], *starts: str) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in tensors.items() if name.startswith(starts)}

    starts = {"embeddings": ("model.embed_tokens",), "head": ("model.norm", "lm_head")}
    assert [each.place for each in record.places] == list(starts)
    for row in (each.to_json() for each in record.places):
        place = starts[row["place"]]
        assert row["kl"] == pytest.approx(kl(reference, only(theirs, *place)), rel=1e-3)
        assert row["restored_kl"] == pytest.approx(kl(candidate, only(ours, *place)), rel=1e-3)
        assert row["kl_low"] <= row["kl"] <= row["kl_high"]
    assert record.measured.kl.candidate == pytest.approx(kl(candidate, {}), rel=1e-3)
    prefixes = [f"model.layers.{block}." for block in range(BLOCKS)]
    for block in (0, BLOCKS - 1):
        prefix = prefixes[block]
        found = {
            view: isolated(run, view)[block] for view in ("isolated", "cumulative", "restored")
        }
        assert found == pytest.approx(
            {
                "isolated": kl(reference, only(theirs, prefix)),
                "cumulative": kl(
                    reference, only(theirs, "model.embed_tokens", *prefixes[: block + 1])
                ),
                "restored": kl(candidate, only(ours, prefix)),
            },
            rel=1e-3,
        ), block
    said = read_text(show(make_client(tmp_path), link("run", "run"))[0])
    assert "Outside the blocks its embeddings (KL " in said
    assert "head (KL " in said
    summed = sum(isolated(run)) + sum(each.kl for each in record.places)
    whole = record.measured.kl.candidate
    assert record.measured.additivity == pytest.approx(summed / whole)


@pytest.mark.parametrize("family", ["gpt_neox", "cohere", "gemma2"])
def test_blocks_of_other_families_are_swapped_whole(
    family: str, make_model: MakeModel, tmp_path: Path
) -> None:
    """Parallel residuals, norms around the MLP, biases: the uniform model is the candidate."""
    model = open_model(str(make_model(family)))
    path = copy_model(model.path, tmp_path)
    torch.manual_seed(3)
    change_tensors(path, lambda name, t: (t * (1 + 0.05 * torch.randn(t.shape))).half())
    windows = torch.randint(0, 300, (3, 32))
    sweep = build_candidate_sweep(model, open_candidate(str(path), model))
    scores = run_sweep(model, windows, sweep)
    expected, _ = naive(model.path, windows)
    kl = naive_kl(expected, naive(path, windows)[0], windows)
    assert float(scores[UNIFORM].kl.mean()) == pytest.approx(kl, rel=1e-3)


def test_a_stopped_comparison_goes_on_to_the_same_numbers(
    spec: CompareSpec, reference: Path, tmp_path: Path
) -> None:
    candidate = copy_model(reference, tmp_path)
    change_tensors(candidate, lambda name, t: t * 1.01 if "up_proj" in name else t)
    whole = compare(spec, candidate, tmp_path / "whole")
    changed = CompareSpec(**{**spec.to_json(), "candidate": str(candidate)})
    steps: list[int] = []

    def stop(stage: str, done: int, total: int) -> None:
        steps.append(done)
        # In the second chunk: the first has a step a block, and one a window in the head.
        if len(steps) == BLOCKS + CHUNK + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_comparison(changed, tmp_path / "run", stop)
    run = run_comparison(changed, tmp_path / "run", lambda *event: steps.append(event[1]))
    assert steps.count(steps[0]) == 1, "the first chunk was repeated"
    assert run.read().headline == whole.read().headline
    for table in ("blocks", "activations", "tokens", "units", "weights"):
        assert run.read_table(table).equals(whole.read_table(table)), table
    before = (run.path / "run.json").read_bytes()
    compare(spec, candidate, tmp_path / "run")
    assert (run.path / "run.json").read_bytes() == before
    run.update(state="failed")
    change_tensors(candidate, lambda name, t: t * 1.01 if "up_proj" in name else t)
    with pytest.raises(InputError, match="candidate has changed since"):
        compare(spec, candidate, tmp_path / "run")


def test_the_reference_itself(spec: CompareSpec, reference: Path, tmp_path: Path) -> None:
    run = compare(spec, reference, tmp_path / "run")
    headline = compared_headline(run)
    assert headline.kl.candidate == 0.0
    assert headline.additivity is None
    assert headline.flagged == []
    result = CliRunner().invoke(app, ["show", str(run.path)])
    assert "It changes nothing that was measured." in " ".join(result.stdout.split())


def test_another_tokenizer_is_refused(spec: CompareSpec, reference: Path, tmp_path: Path) -> None:
    candidate = copy_model(reference, tmp_path)
    path = candidate / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    first, second = sorted(vocabulary)[50:52]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(InputError, match="reads the text as other tokens"):
        compare(spec, candidate, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    for path in candidate.glob("*token*"):
        path.unlink()
    record = compare(spec, candidate, tmp_path / "run").read()
    assert isinstance(record, Comparison) and not record.candidate.tokenizer


def assert_pages_read_well(root: Path) -> None:
    """Every page of the comparison `run` below `root`."""
    client, said = make_client(root), {}
    for name in ("run", "block", "tokens", "recipe", "explain"):
        said[name] = read_text(show(client, link(name, "run", 1))[0])
        assert "A comparison:" in said[name]
        assert "candidate (not quantized)" in said[name]
        assert "AWQ" not in said[name]
        assert "uniform" not in said[name].lower()
    assert "Perplexity, candidate" in said["run"]
    assert "Widths that were found" in said["run"]
    assert "New run like this one" in said["run"]
    assert "Outside the blocks" not in said["run"]
    assert "Units have no KL of their own here" in said["block"]
    assert "mlp.up_proj is rounded worst" in said["block"]
    assert "A comparison has no recipe" in said["recipe"]
    assert "Nothing can be explained here" in said["explain"]
    assert "The candidate model, by the default policy" in said["run"]
    listed = find_type(show(client, "/")[0], "AgGrid")[0]["rowData"]
    assert [row["verdict"] for row in listed] == ["▲ block 1 of the candidate"]


def test_command_line(spec: CompareSpec, reference: Path, tmp_path: Path) -> None:
    candidate, out = copy_model(reference, tmp_path), tmp_path / "run"
    change_tensors(candidate, lambda name, t: t * 1.1 if ".1.mlp.up_proj" in name else t)
    options = ["--valid", spec.valid[0], "--seq-len", "64", "--windows", "4", "--out", str(out)]
    command = ["compare", str(reference), str(candidate), *options]
    result = CliRunner().invoke(app, [*command, "--top-k", "1", "--json"])
    assert result.exit_code == 0, result.output
    headline = json.loads(result.stdout)
    assert headline["flagged"] == [1]
    assert set(headline["ppl"]) == {"reference", "candidate"}
    assert set(headline["kl"]) == {"candidate"}
    said = " ".join(CliRunner().invoke(app, ["show", str(out)]).stdout.split())
    assert "candidate (not quantized) costs " in said
    assert "Block 1 is flagged." in said
    assert "AWQ" not in said
    assert_pages_read_well(tmp_path)
    again = spec_command(RunDirectory(out).read().spec, out, Execution())
    result = CliRunner().invoke(app, again[again.index("compare") :])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, [*command, "--windows", "1"])
    assert result.exit_code == 2
    assert "--windows 1 is too small" in result.stderr
    change_config(candidate, quantization_config={"quant_method": "eetq"})
    shutil.rmtree(out)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert (
        "'eetq' is not read: compare a checkpoint of awq, gptq, auto-round, compressed"
        in result.stderr
    )
    assert not out.exists()


def test_a_gguf_file_is_a_candidate(
    spec: CompareSpec, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the model that is unpacked from it compares, with the file's widths and bytes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, out = tmp_path / "tiny.Q4_1.gguf", tmp_path / "run"
    q4, q8 = GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q8_0
    write_gguf(path, reference, q4, q8)
    options = ["--valid", spec.valid[0], "--seq-len", "64", "--windows", "4"]
    command = ["compare", str(reference), str(path), *options, "--out", str(out)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "candidate" in result.stdout and "quantized before" not in result.output
    record = RunDirectory(out).read()
    assert isinstance(record, Comparison) and record.headline is not None
    assert (record.candidate.format, record.candidate.bits) == ("gguf", {"4": 7 * BLOCKS})
    assert [place.place for place in record.places] == ["embeddings", "head"]
    assert record.headline.bytes.candidate < path.stat().st_size
    assert "4-bit GGUF" in CliRunner().invoke(app, ["show", str(out)]).stdout
    plain = tmp_path / "plain"
    result = CliRunner().invoke(
        app, ["dequantize", str(path), "--out", str(plain), "--dtype", "float32"]
    )
    assert result.exit_code == 0, result.output
    assert "(float32), the plain model of a 4-bit GGUF" in result.stdout
    other = compare(spec.change(windows=4), plain, tmp_path / "other")
    assert compared_headline(other).kl.candidate == record.headline.kl.candidate
    facts = list_facts(record)
    assert facts["Candidate"] == f"{path}: GGUF, {7 * BLOCKS} linears at 4 bits"
    assert facts["Served"].startswith("unknown. A GGUF file is for llama.cpp")


def test_a_token_for_padding_is_no_other_tokenizer(
    spec: CompareSpec, reference: Path, tmp_path: Path
) -> None:
    candidate = copy_model(reference, tmp_path)
    theirs = load_tokenizer(candidate)
    theirs.add_special_tokens({"pad_token": "[PAD]"})
    theirs.save_pretrained(candidate)
    assert load_tokenizer(candidate).get_vocab() != load_tokenizer(reference).get_vocab()
    record = compare(spec.change(windows=4), candidate, tmp_path / "run").read()
    assert isinstance(record, Comparison) and record.candidate.tokenizer


@pytest.fixture(scope="module")
def finished(
    make_model: MakeModel, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunDirectory:
    """A comparison on two texts, of which one block and the embeddings differ."""
    folder = tmp_path_factory.mktemp("finished")
    second = folder / "second.txt"
    second.write_text(text_file.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    reference = make_model("llama", num_hidden_layers=BLOCKS)
    candidate = copy_model(reference, folder)
    changed = (".1.mlp.up_proj", "embed_tokens")
    change_tensors(candidate, lambda name, t: t * 1.1 if any(c in name for c in changed) else t)
    texts = (str(text_file), str(second))
    asked = CompareSpec(
        reference=str(reference),
        candidate=str(candidate),
        valid=texts,
        seq_len=64,
        windows=16,
        top_k=1,
    )
    return run_comparison(asked, folder / "run", lambda *event: None)


def test_several_texts_are_slices(finished: RunDirectory) -> None:
    record = finished.read()
    slices = record.ppl_definition.slices
    stored = record.to_json()["spec"]
    assert [part.text for part in slices] == stored["valid"]
    assert [part.first_window for part in slices] == [0, slices[0].windows]
    assert sum(part.windows for part in slices) == 16
    assert record.spec.valid == tuple(stored["valid"])
    command = spec_command(record.spec, finished.path, Execution())
    assert [f"--valid={text}" in command for text in stored["valid"]] == [True, True]


def test_every_number_by_text_is_that_of_a_plain_forward(finished: RunDirectory) -> None:
    """Δp as llama.cpp defines it: of the token that is there, p(candidate) − p(reference)."""
    record, windows = finished.read(), read_windows(finished)
    assert isinstance(record, Comparison)
    numbers, paths = read_numbers(finished, record), (record.model, record.candidate.path)
    assert len(numbers.texts) == 2
    logs = [naive(Path(path), windows)[0].double().log_softmax(-1) for path in paths]
    ours, theirs = (one.gather(-1, windows[:, 1:, None])[..., 0].numpy() for one in logs)
    kl = (logs[0].exp() * (logs[0] - logs[1])).sum(-1).numpy()
    same = (logs[0].argmax(-1) == logs[1].argmax(-1)).numpy()
    shift = np.exp(theirs) - np.exp(ours)
    for part in (*numbers.texts, numbers.whole):
        here = slice(part.first, part.first + part.windows)
        assert part.tokens == ours[here].size
        ppl = [np.exp(-one[here].mean()) for one in (ours, theirs)]
        assert [*part.ppl.values()] == pytest.approx(ppl, rel=1e-5)
        expected = {
            "ppl_ratio": ppl[1] / ppl[0],
            "kl": kl[here].mean(),
            "kl_p999": np.quantile(kl[here], 0.999),
            "top1_agreement": same[here].mean(),
            "delta_p": shift[here].mean(),
            "rms_delta_p": np.sqrt((shift[here] ** 2).mean()),
        }
        for name, value in expected.items():
            found = part.find("candidate", name)
            assert found is not None and found.value == pytest.approx(value, rel=1e-3), name


def test_the_same_text_twice_is_refused(spec: CompareSpec) -> None:
    with pytest.raises(InputError, match="is given twice"):
        CompareSpec(**{**spec.to_json(), "valid": spec.valid * 2})


@pytest.mark.parametrize("subject", ["mixed", "uniform"])
def test_the_gate_judges_the_candidate(
    subject: str, finished: RunDirectory, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    limits = "max_kl = 10\nmax_slice_kl = 10\nmax_size_ratio = 1\nmax_block_share = 0.01"
    proof = "require_proof = true" if subject == "mixed" else ""
    policy.write_text(f'subject = "{subject}"\n[limits]\n{limits}\n{proof}\n')
    command = ["gate", str(finished.path), "--policy", str(policy), "--json", "-"]
    result = CliRunner().invoke(app, command)
    verdict = json.loads(result.stdout)
    found = {limit["name"].partition(".")[2]: limit for limit in verdict["limits"]}
    headline, text = compared_headline(finished), finished.read().spec.valid
    assert verdict["subject"] == "candidate"
    assert found["max_kl"]["value"] == pytest.approx(headline.kl.candidate, rel=1e-5)
    assert found["max_slice_kl"]["of"] in text
    assert found["max_size_ratio"]["value"] == 1
    # Of one block that differs all is that block's, whatever the embeddings do.
    assert found["max_block_share"]["value"] == 1
    assert found["max_block_share"]["of"] == "block 1"
    assert result.exit_code == 1
    assert "require_proof" not in found
    assert any("No proof was asked for" in note for note in verdict["notes"]) == bool(proof)


def test_a_comparison_is_its_own_baseline(finished: RunDirectory, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[drift]\nmax_ppl_ratio = 1\nmax_kl_ratio = 1\nmax_size_ratio = 1\n")
    path = str(finished.path)
    result = CliRunner().invoke(app, ["gate", path, "--policy", str(policy), "--baseline", path])
    assert result.exit_code == 0, result.output


def test_a_policy_of_proof_alone_judges_no_comparison(
    finished: RunDirectory, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[limits]\nrequire_proof = true\n")
    result = CliRunner().invoke(app, ["gate", str(finished.path), "--policy", str(policy)])
    assert result.exit_code == 2
    assert "judges nothing here" in result.stderr


def test_the_report_of_a_comparison(finished: RunDirectory, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["report", str(finished.path), "-o", str(page)])
    assert result.exit_code == 0, result.output
    markup = page.read_text(encoding="utf-8").partition('<script type="application/json"')[0]
    # The terms at its end say of a candidate what it stands in place of.
    markup = markup.partition('<section class="section" id="terms"')[0]
    said = " ".join(re.sub(r"<[^>]*>", " ", markup.partition("</style>")[2]).split())
    said = html.unescape(said)
    assert "(not quantized) against" in said
    named = f"{finished.path.parent.name}/candidate"
    assert f"A comparison: the candidate is {named} (not quantized)." in said
    assert "uniform" not in said.lower()
    assert "Units have no KL of their own here" in said
    assert "there is nothing to choose widths from" in said
    assert "Outside the blocks" in said
    assert "embeddings" in said
    assert "Units of block 1" in said
    assert "candidate: model.safetensors" in said
    for absent in ("AWQ cost", "Calibration text", "no checkpoint proved", "None-bit"):
        assert absent not in said


@pytest.mark.parametrize(
    "command",
    [
        ["recipe"],
        ["recipe", "--target-bits", "5", "-o", "OUT"],
        ["requantize", "--recipe", "recipe.json", "--out", "OUT"],
        ["explain", "--prompt", "The", "-o", "OUT"],
    ],
)
def test_what_takes_searches_says_that_there_are_none(
    command: list[str], finished: RunDirectory, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rest = [str(out) if part == "OUT" else part for part in command[1:]]
    result = CliRunner().invoke(app, [command[0], str(finished.path), *rest])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "is a comparison, without searches or recipe of its own" in result.stderr
    assert not out.exists()


def test_a_comparison_has_no_scores(finished: RunDirectory) -> None:
    with pytest.raises(InputError, match="is a comparison"):
        read_scores(finished.path)
