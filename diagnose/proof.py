"""The proof: the checkpoint as a user would load it, against the recipe, the simulation and FP16.

`python -m diagnose.proof RUN` runs in a process of its own and trusts nothing that the run
computed but the recipe, the searches and the tokens. transformers loads the checkpoint; then

* every linear's realised width is the recipe's, by the codes on disk and by config.json;
* dequantized weights equal the simulated ones bit for bit, as read by us and as transformers holds
  them;
* the reference, run again, gives the NLL of the sweep;
* PPL, KL and agreement are measured on transformers' own logits.
"""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from diagnose.bootstrap import Resampler
from diagnose.likelihood import empty_scores, prepare_reference, score, tokens_a_chunk
from diagnose.quantized import advance
from diagnose.rundir import RunDirectory
from diagnose.spec import RunSpec
from mixedprec.arithmetic import FP16_BITS, Quantized
from mixedprec.checkpoint import read_linears, realise_block
from mixedprec.files import write_json
from mixedprec.model import SourceModel, get_linear, open_model
from mixedprec.recipe import Recipe, load_recipe

# Float32 sums of a forward in another order; far below any damage worth speaking of.
NLL_TOLERANCE = 1e-3


def check_linears(
    model: SourceModel, recipe: Recipe, run: RunDirectory, loaded: nn.Module
) -> dict[str, Any]:
    """Compare every linear on disk, and as transformers holds it, with recipe and simulation."""
    stored = dict(read_linears(run.checkpoint))
    wrong_width, differing, differing_loaded = [], [], []
    widths = recipe.linear_widths()
    for number in range(model.blocks):
        prefix = model.prefix(number)
        realised = realise_block(model, recipe, run.searches, number, model.dtype)
        for name, linear in realised.linears.items():
            full = f"{prefix}.{name}"
            on_disk = stored.pop(full, None)
            if isinstance(on_disk, Quantized):
                bits, weight = on_disk.scheme.bits, on_disk.dequantize()
            elif on_disk is not None:
                bits, weight = FP16_BITS, on_disk.float()
            else:
                bits, weight = 0, torch.empty(0)
            expected = linear.served()
            if bits != widths[full]:
                wrong_width.append(full)
            if not torch.equal(weight, expected):
                differing.append(full)
            if not torch.equal(get_linear(loaded, full).weight.float(), expected):
                differing_loaded.append(full)
    return {
        "linears": len(widths),
        "wrong_width": wrong_width,
        "unexpected": sorted(stored),
        "differing_on_disk": differing,
        "differing_in_transformers": differing_loaded,
    }


@torch.no_grad()
def reference_stream(model: SourceModel, windows: Tensor) -> Tensor:
    """Final hidden states of the reference [n, length, d], block by block."""
    entrance = model.read_entrance()
    all_kwargs = entrance.block_kwargs(windows.shape[1])
    hidden = torch.cat([entrance.enter(batch) for batch in windows.split(8)])
    del entrance
    for number in range(model.blocks):
        advance(model.read_block(number), hidden, all_kwargs[number])
    return hidden


@torch.no_grad()
def measure(
    model: SourceModel, loaded: nn.Module, windows: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """nll, kl, agree [n, length − 1] of the loaded model, and the reference's NLL."""
    hidden = reference_stream(model, windows)
    head = model.read_head()
    found = empty_scores(*windows.shape)
    reference_nll = torch.zeros_like(found.nll)
    step = tokens_a_chunk(model.config.vocab_size)
    for number, window in enumerate(windows):
        logits = loaded(input_ids=window[None], use_cache=False).logits[0].float()
        for start in range(0, len(window) - 1, step):
            here = slice(start, min(start + step, len(window) - 1))
            targets = window[here.start + 1 : here.stop + 1]
            reference = prepare_reference(head(hidden[number : number + 1, here])[0].float())
            reference_nll[number, here] = score(reference, reference.logits, targets)[0]
            nll, kl, agree = score(reference, logits[here], targets)
            found.nll[number, here], found.kl[number, here] = nll, kl
            found.agree[number, here] = agree
    return {"nll": found.nll, "kl": found.kl, "agree": found.agree}, reference_nll


def summarise(
    mixed: dict[str, Tensor], reference_nll: Tensor, uniform_kl: np.ndarray, seed: int
) -> dict[str, Any]:
    """The measured numbers of proof.json, with intervals."""
    resampler = Resampler(len(reference_nll), seed)
    nll = mixed["nll"].double().mean(1).numpy()
    kl = mixed["kl"].double().mean(1).numpy()
    delta = resampler.ppl_difference(reference_nll.double().mean(1).numpy(), nll)
    spread, left = resampler.mean(kl), resampler.ratio(kl, uniform_kl)
    return {
        "ppl": math.exp(nll.mean()),
        "delta_ppl": [delta.value, delta.low, delta.high],
        "kl": spread.value,
        "kl_interval": [spread.low, spread.high],
        "kl_p99": float(np.quantile(mixed["kl"].numpy(), 0.99)),
        "kl_p999": float(np.quantile(mixed["kl"].numpy(), 0.999)),
        "top1_agreement": float(mixed["agree"].double().mean()),
        "recovered": 1 - left.value,
        "recovered_interval": [1 - left.high, 1 - left.low],
    }


def prove(run: RunDirectory) -> dict[str, Any]:
    """Carry out the proof of a run; write proof.json and the mixed model's token scores."""
    record = run.read()
    spec = RunSpec.from_json(record["spec"])
    model = open_model(spec.model)
    recipe = load_recipe(run.path / "recipe.json")
    tokens = run.read_table("tokens")
    shape = (record["ppl_definition"]["windows"], record["ppl_definition"]["seq_len"])
    windows = torch.tensor(tokens["token"].to_numpy()).long().view(shape)

    def by_window(column: str) -> Tensor:
        values = tokens[column].to_numpy(zero_copy_only=False).reshape(shape)[:, 1:]
        return torch.tensor(values.astype(np.float32))

    logging.set_verbosity_error()
    loaded = AutoModelForCausalLM.from_pretrained(
        run.checkpoint, dtype=torch.float32, local_files_only=True
    ).eval()
    # transformers unpacks compressed weights at the first forward: measure before looking at them.
    mixed, reference_nll = measure(model, loaded, windows)
    checks = check_linears(model, recipe, run, loaded)
    difference = float((reference_nll - by_window("nll_reference")).abs().max())
    checks["reference_nll_difference"] = difference
    passed = (
        difference < NLL_TOLERANCE
        and not any(checks[name] for name in checks if isinstance(checks[name], list))
        and bool(torch.isfinite(mixed["nll"]).all())
    )
    uniform_kl = by_window("kl_uniform").double().mean(1).numpy()
    proof = {
        "schema": 1,
        "passed": passed,
        "checks": checks,
        "measured": summarise(mixed, reference_nll, uniform_kl, spec.seed),
        "predicted_recovered": record["headline"]["predicted_recovered"],
        "loaded_with": f"transformers {record['versions']['transformers']}",
    }
    run.write_arrays("work/proof.safetensors", mixed)
    write_json(run.path / "proof.json", proof)
    return proof


if __name__ == "__main__":
    prove(RunDirectory(Path(sys.argv[1])))
