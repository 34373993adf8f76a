"""A checkpoint of ours in vLLM on the device."""

import importlib
import os

from awqscope.diagnose.runs.directory import RunDirectory
from examples.benchmarks.on_gpu.equality import describe_served
from examples.benchmarks.on_gpu.process import Note, SkipError
from examples.benchmarks.on_gpu.setting import Setting

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
MEMORY_SHARE = 0.3


def measure_serving(setting: Setting, note: Note) -> None:
    """Load the checkpoint of the demo's run, and the NLL of its first window there and here."""
    os.environ |= ENVIRONMENT
    try:
        vllm = importlib.import_module("vllm")
    except ImportError as error:
        raise SkipError(f"vLLM cannot be imported here ({error})") from error
    run = RunDirectory(setting.run)
    if not run.checkpoint.exists():
        raise SkipError("there is no checkpoint: the demo's run on the device made none")
    note("version", vllm.__version__)
    tokens, nll = describe_served(run)
    model = vllm.LLM(
        model=str(run.checkpoint),
        dtype="float16",
        enforce_eager=True,
        max_model_len=len(tokens) + 1,
        gpu_memory_utilization=MEMORY_SHARE,
    )
    note("loaded", True)
    options = vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, temperature=0.0)
    [found] = model.generate([{"prompt_token_ids": tokens}], options)
    scored = zip(tokens[1:], found.prompt_logprobs[1:], strict=True)
    note("nll", -sum(likely[token].logprob for token, likely in scored) / (len(tokens) - 1))
    note("nll_here", nll)
