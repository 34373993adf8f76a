"""Checkpoints in vLLM itself, on the CPU: what it matches, what it loads, and the perplexity of a
real server. `make test-serving` installs it.

Mixtures of experts are loaded, not served: the CPU build of 0.32 has one kernel for packed experts
(CPUExpertsInt4 in fused_moe/experts/cpu_moe.py), for 4 bits and CPUs with AMX tiles. Elsewhere, and
for 8 bits on any CPU, it stops with "No WNA16 MoE backend supports the deployment configuration"
(fused_moe/oracle/int_wna16.py)."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.mixedprec.checkpoints.matching import served_layers
from awqscope.mixedprec.checkpoints.serving import LOADS, REFUSES, VLLM, WRONG
from awqscope.mixedprec.checkpoints.writer import examine_serving
from awqscope.mixedprec.models.catalogue import open_catalogue
from awqscope.mixedprec.models.opening import open_model
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.scheme import Grouped
from tests.help.root import ROOT
from tests.help.spoiled import FAULTS, Opened, at, meaning, spoil, write_sound

pytestmark = pytest.mark.serving

DEMO = ROOT / "examples/demo"
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
}
STARTUP_SECONDS = 600
TOLERANCE = 1e-3
# Fused by vLLM, fused on disk, fused by a class that does not say so, and two through transformers.
SHAPES = ("llama", "phi3", "stablelm", "starcoder2", "gpt_neox")
MIXTURES = ("mixtral", "qwen3_moe")
Held = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def open_in_vllm() -> Iterator[Callable[[Path], torch.nn.Module]]:
    """Loads a checkpoint as a worker of vLLM's does. AssertionError and others where it refuses."""
    os.environ |= ENVIRONMENT
    from vllm.config import set_current_vllm_config
    from vllm.distributed import (
        destroy_model_parallel,
        ensure_model_parallel_initialized,
        init_distributed_environment,
    )
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader import get_model
    from vllm.plugins import load_general_plugins

    load_general_plugins()

    def load(path: Path) -> torch.nn.Module:
        options = EngineArgs(
            model=str(path), dtype="float16", enforce_eager=True, max_model_len=128
        )
        config = options.create_engine_config()
        with set_current_vllm_config(config):
            if not torch.distributed.is_initialized():
                address = f"tcp://127.0.0.1:{free_port()}"
                init_distributed_environment(1, 0, address, 0, "gloo")
            # Anew for each: only a mixture's has a group for experts.
            destroy_model_parallel()
            ensure_model_parallel_initialized(1, 1)
            model: torch.nn.Module = get_model(vllm_config=config)
            return model

    # The worker does without an accelerator's cache too.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.accelerator, "empty_cache", lambda: None)
        yield load


@pytest.fixture(scope="module")
def load_in_vllm(open_in_vllm: Callable[[Path], torch.nn.Module]) -> Callable[[Path], Held]:
    """Loads a checkpoint; every linear's weight as vLLM computes with it, by vLLM's name: what it
    makes of the identity."""
    from vllm.model_executor.layers.linear import LinearBase

    def load(path: Path) -> Held:
        return {
            name: module.quant_method.apply(
                module, torch.eye(module.input_size, dtype=torch.float16), None
            ).T.float()
            for name, module in open_in_vllm(path).named_modules()
            if isinstance(module, LinearBase)
        }

    return load


def compare_held(held: Held, path: Path, model: SourceModel) -> str:
    """LOADS where vLLM holds what is stored, to float16's rounding; else WRONG."""
    stored = meaning(load_file(path / "model.safetensors"))
    for layer in served_layers(model.family, model.blocks):
        name = layer.name.replace("gpt_neox.", "model.")
        names = [name] if name in held else [p.replace("gpt_neox.", "model.") for p in layer.parts]
        found = torch.cat([held[name] for name in names])
        if not set(layer.parts) <= stored.keys():
            return WRONG
        wanted = torch.cat([stored[part] for part in layer.parts])
        if not torch.allclose(found, wanted, rtol=2e-3, atol=2e-3 * float(wanted.abs().max())):
            return WRONG
    return LOADS


@pytest.fixture(scope="module")
def sound(
    make_model: Callable[..., Path], text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SourceModel, Path]:
    """A llama's checkpoint with 4, 8 and 16 bits."""
    out = tmp_path_factory.mktemp("sound") / "checkpoint"
    return write_sound(out, make_model("llama"), text_file), out


@pytest.mark.parametrize("name", FAULTS)
def test_spoiled_checkpoints(
    name: str,
    sound: tuple[SourceModel, Path],
    load_in_vllm: Callable[[Path], Held],
    tmp_path: Path,
) -> None:
    """vLLM makes of them what the check says that it does."""
    model, checkpoint = sound
    path = spoil(checkpoint, tmp_path / "spoiled", FAULTS[name].change)
    expected = examine_serving(open_catalogue(path), model).outcome(VLLM)
    assert expected == FAULTS[name].vllm
    try:
        held = load_in_vllm(path)
    except (AssertionError, AttributeError, RuntimeError, ValueError):
        assert expected == REFUSES
    else:
        assert compare_held(held, path, model) == expected


@pytest.mark.parametrize("family", SHAPES)
def test_every_way_of_fusing_is_held_as_stored(
    family: str,
    make_model: Callable[..., Path],
    text_file: Path,
    load_in_vllm: Callable[[Path], Held],
    tmp_path: Path,
) -> None:
    model = write_sound(tmp_path / "out", make_model(family), text_file)
    assert compare_held(load_in_vllm(tmp_path / "out"), tmp_path / "out", model) == LOADS


@pytest.mark.parametrize("family", SHAPES)
def test_groups_of_several_sizes_are_held_as_stored(
    family: str,
    make_model: Callable[..., Path],
    text_file: Path,
    load_in_vllm: Callable[[Path], Held],
    tmp_path: Path,
) -> None:
    """4 bits in groups of 64 and of 32, 8 and 16 bits, each kind of unit in both sizes."""
    path = make_model(family)
    kinds = [kind.name for kind in open_model(str(path)).family.units]
    fine = {f"{number % 2}.{kind}": Grouped(4, 32) for number, kind in enumerate(kinds)}
    model = write_sound(tmp_path / "out", path, text_file, **fine)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    groups = [group["weights"]["group_size"] for group in config["config_groups"].values()]
    assert sorted(set(groups)) == [32, 64]
    found = examine_serving(open_catalogue(tmp_path / "out"), model)
    assert found.outcome(VLLM) == LOADS
    assert compare_held(load_in_vllm(tmp_path / "out"), tmp_path / "out", model) == LOADS


@pytest.fixture
def without_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Experts stay as they were loaded: nothing is chosen to compute with them."""
    from vllm.model_executor.layers.fused_moe.oracle.int_wna16 import WNA16MoEBackend
    from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
        compressed_tensors_moe_wna16 as moe,
    )

    method = moe.CompressedTensorsWNA16MoEMethod
    chosen = WNA16MoEBackend.EMULATION, None
    monkeypatch.setattr(moe, "select_wna16_moe_backend", lambda **_: chosen)
    monkeypatch.setattr(method, "process_weights_after_loading", lambda *_: None)


@pytest.mark.parametrize("family", MIXTURES)
@pytest.mark.usefixtures("without_a_kernel")
def test_experts_of_each_block_are_held_at_their_own_width(
    family: str,
    make_model: Callable[..., Path],
    text_file: Path,
    open_in_vllm: Callable[[Path], torch.nn.Module],
    tmp_path: Path,
) -> None:
    """One block's at 8 bits, the other's at 4, as vLLM stacks what is stored of each."""
    out = tmp_path / "out"
    model = write_sound(out, make_model(family), text_file, **{"0.experts": 4, "1.experts": 8})
    assert examine_serving(open_catalogue(out), model).outcome(VLLM) == LOADS
    stored, layout = load_file(out / "model.safetensors"), model.family.experts
    assert layout is not None
    held = {
        name: values
        for name, values in open_in_vllm(out).named_parameters()
        if ".w13_" in name or ".w2_" in name
    }
    parts = {"w13": (layout.gate, layout.up), "w2": (layout.down,)}
    compared = 0
    for name, values in held.items():
        block = name.partition(".layers.")[2].partition(".")[0]
        fused, _, kind = name.rpartition(".")[2].partition("_")
        if kind not in ("weight_packed", "weight_scale"):
            continue
        for number, expert in enumerate(values):
            prefix = f"model.layers.{block}.{layout.expert(number)}"
            wanted = torch.cat([stored[f"{prefix}.{part}.{kind}"] for part in parts[fused]])
            assert torch.equal(expert, wanted.to(expert.dtype)), name
            compared += 1
    assert compared == 2 * 2 * 2 * getattr(model.config, layout.count)


def test_the_cpu_build_has_no_kernel_for_8_bit_experts(
    make_model: Callable[..., Path],
    text_file: Path,
    open_in_vllm: Callable[[Path], torch.nn.Module],
    tmp_path: Path,
) -> None:
    write_sound(tmp_path / "out", make_model("mixtral"), text_file, **{"1.experts": 8})
    with pytest.raises(NotImplementedError, match="No WNA16 MoE backend supports"):
        open_in_vllm(tmp_path / "out")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve(checkpoint: Path, log: Path) -> Iterator[str]:
    """A server of a checkpoint in float16, by its address; RuntimeError with the end of its log
    where it does not start. It is stopped with all its processes, whatever happens."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(checkpoint), "--served-model-name", "checkpoint"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float16"]
    command += ["--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "8"]
    environment = {**os.environ, **ENVIRONMENT, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=log.parent,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + STARTUP_SECONDS
        while not is_healthy(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no server:\n{log.read_text(errors='replace')[-6000:]}")
            time.sleep(1)
        yield address
    except Exception:
        sys.stderr.write(log.read_text(errors="replace")[-6000:])
        raise
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def measure(address: str, windows: np.ndarray) -> np.ndarray:
    """NLL of every token of windows [N, T] but each one's first, [N, T-1], by the server's API."""
    rows = []
    for window in windows.tolist():
        asked = {
            "model": "checkpoint",
            "prompt": window,
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
        }
        request = urllib.request.Request(
            f"{address}/v1/completions",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            told = json.load(answer)["choices"][0]["prompt_logprobs"]
        rows.append([-told[i][str(window[i])]["logprob"] for i in range(1, len(window))])
    return np.array(rows)


def perplexity(nll: np.ndarray) -> float:
    return float(np.exp(nll.mean()))


def awqscope(*arguments: str) -> None:
    command = [sys.executable, "-m", "awqscope.app.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A finished run of the demo's model, with units at 4, 8 and 16 bits."""
    out = tmp_path_factory.mktemp("demo") / "run"
    texts = ["--calib", str(DEMO / "calib.txt"), "--valid", str(DEMO / "valid.txt")]
    sizes = ["--windows", "8", "--seq-len", "256", "--calib-windows", "8", "--verify-units", "2"]
    awqscope("run", str(DEMO), *texts, *sizes, "--keep-fp16", "1.o", "--out", str(out))
    return RunDirectory(out)


def read_windows(run: RunDirectory, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The run's windows of tokens [N, T], and a column of NLL at their scored tokens [N, T-1]."""
    rows = run.read_table("tokens").to_pandas()
    windows = rows["token"].to_numpy().reshape(rows["window"].nunique(), -1)
    return windows, rows[column].to_numpy().reshape(windows.shape)[:, 1:]


def test_the_servers_perplexity_is_the_proofs(
    demo_run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    widths = {u["bits"] for u in json.loads((demo_run.path / "recipe.json").read_text())["units"]}
    assert widths == {4, 8, 16}
    proof = json.loads((demo_run.path / "proof.json").read_text())
    windows, proved = read_windows(demo_run, "nll_mixed")
    assert perplexity(proved) == pytest.approx(proof["measured"]["ppl"], rel=1e-6)
    with serve(demo_run.checkpoint, tmp_path / "log") as address:
        served = measure(address, windows)
    with capsys.disabled():
        print(
            f"\nPPL {perplexity(served):.5f} through vLLM, {proof['measured']['ppl']:.5f} proved, "
            f"mean |difference of log-probabilities| {np.abs(served - proved).mean():.5f}"
        )
    assert perplexity(served) == pytest.approx(proof["measured"]["ppl"], rel=TOLERANCE)
    assert np.abs(served - proved).mean() < 0.01


def test_a_broken_rule_shows_in_the_servers_perplexity(
    demo_run: RunDirectory, tmp_path: Path
) -> None:
    """up is symmetric and said to be; vLLM asks for the fused name, and takes it as gate is."""

    def change(opened: Opened) -> None:
        opened.pack(at(2, "mlp.up_proj"), 4, True, 128)
        opened.declare([at(2, "mlp.up_proj")], 4, True, 128)

    path = spoil(demo_run.checkpoint, tmp_path / "spoiled", change)
    windows, _ = read_windows(demo_run, "nll_mixed")
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        tokens = torch.from_numpy(windows.copy()).long()
        logits = model(tokens, use_cache=False).logits[:, :-1].log_softmax(-1)
        meant = -logits.gather(2, tokens[:, 1:, None])[..., 0].numpy()
    with serve(path, tmp_path / "log") as address:
        served = measure(address, windows)
    assert perplexity(served) != pytest.approx(perplexity(meant), rel=10 * TOLERANCE)
    found = examine_serving(open_catalogue(path), open_model(str(DEMO)))
    assert found.outcome(VLLM) == WRONG
    assert any(at(2, "mlp.up_proj") in fault.what for fault in found.faults)


def test_autoawqs_format_is_served(demo_run: RunDirectory, tmp_path: Path) -> None:
    recipe = json.loads((demo_run.path / "recipe.json").read_text())
    for unit in recipe["units"]:
        unit["bits"] = min(unit["bits"], 4) if unit["bits"] < 16 else 16
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    out = ["--recipe", str(tmp_path / "recipe.json"), "--out", str(tmp_path / "awq")]
    awqscope("requantize", str(demo_run.path), *out, "--format", "awq")
    windows, uniform = read_windows(demo_run, "nll_uniform")
    with serve(tmp_path / "awq", tmp_path / "log") as address:
        served = measure(address, windows)
    assert perplexity(served) == pytest.approx(perplexity(uniform), rel=TOLERANCE)
