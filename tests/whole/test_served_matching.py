"""The rules by which vLLM and SGLang match layers, against their own functions, and what of vLLM's
wishes the environment leaves out. `make test-serving` installs both."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from copy import deepcopy
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from awqscope.mixedprec.checkpoints.matching import (
    Refused,
    read_groups,
    read_in_sglang,
    read_in_vllm,
)
from tests.help.grouped import LAYERS, quantizations

pytestmark = pytest.mark.serving

FUSED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}


@given(quantizations())
@settings(max_examples=300, deadline=None)
def test_matching_is_vllms(quantization: dict[str, Any]) -> None:
    from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import (
        CompressedTensorsConfig,
    )

    groups = read_groups(quantization)
    for mapped in (True, False):
        config = CompressedTensorsConfig.from_config(deepcopy(quantization))
        if mapped:
            config.packed_modules_mapping = FUSED
        for layer in LAYERS:
            module = type(layer.server_class, (torch.nn.Module,), {})()
            reading = read_in_vllm(layer, groups, mapped)
            try:
                scheme = config.get_scheme_dict(module, layer.name)
            except ValueError:
                assert isinstance(reading, Refused), layer
                continue
            assert not isinstance(reading, Refused), layer
            weights = scheme and scheme["weights"]
            taken = weights and (weights.num_bits, weights.group_size, weights.symmetric)
            assert taken == (reading and (reading.bits, reading.group_size, reading.symmetric)), (
                layer
            )


@pytest.fixture(scope="module")
def sglang_matching() -> ModuleType:
    """SGLang's functions that match layers, without the rest of it, which needs a GPU's kernels."""
    files = importlib.metadata.files("sglang") or []
    (path,) = [each for each in files if each.match("quantization/compressed_tensors/utils.py")]
    spec = importlib.util.spec_from_file_location("sglang_matching", path.locate())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@given(quantization=quantizations())
@settings(max_examples=300, deadline=None)
def test_matching_is_sglangs(sglang_matching: ModuleType, quantization: dict[str, Any]) -> None:
    groups = read_groups(quantization)
    for layer in LAYERS:
        module = type(layer.server_class, (torch.nn.Module,), {})()
        reading = read_in_sglang(layer, groups)
        try:
            ignored = sglang_matching.should_ignore_layer(layer.name, groups.ignore, FUSED)
            target = (
                None
                if ignored
                else sglang_matching.find_matched_target(layer.name, module, groups.targets, FUSED)
            )
        except ValueError:
            assert isinstance(reading, Refused), layer
            continue
        assert reading == (target and groups.targets[target]), layer


def test_which_of_its_pins_give_way() -> None:
    """What pip finds amiss in this environment, as constraints-serving.txt and the guide for
    developers say it. Of compressed-tensors vLLM wants 0.17.0, so that both read zero points."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # Of SGLang two functions are asked for, and nothing that it wants is there.
    lines = (line for line in done.stdout.splitlines() if not line.startswith("sglang "))
    found = [line for line in lines if " requires " in line or " has requirement " in line]
    amiss = {re.sub(r".* (requires|has requirement) ([\w-]+).*", r"\2", line) for line in found}
    absent = {"intel-openmp", "torchaudio", "torchcodec", "torchvision"}
    assert amiss == {*absent, "compressed-tensors", "numpy", "setuptools", "transformers"}
    wanted = next(line for line in found if "requirement compressed-tensors" in line)
    assert "compressed-tensors==0.17.0, but you have compressed-tensors 0.17.1" in wanted
