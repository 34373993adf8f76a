"""Plant a fault that AWQ cannot repair, without changing what the FP model computes.

In each key-value head the values V and the output projection O may be mixed by any invertible A:
V' = A·V and O' = O·A⁻¹ leave the attention's output as it was. With A = R·D·R' (R, R' random
rotations, D from 1/√c to √c) every row of V' is dominated by few directions, 4-bit rounding drowns
the rest, and O' amplifies what was drowned. AWQ's remedy is a *diagonal* scale between V and O; no
diagonal scale undoes a rotation. 8 bits are enough again.
"""

import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig

from awqscope.mixedprec.files.atomic import replace_file


def mixing_matrix(size: int, condition: float, generator: torch.Generator) -> torch.Tensor:
    """A = R·D·R' of shape [size, size], float64, with singular values from 1/√c to √c."""
    rotations = [
        torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
        for _ in range(2)
    ]
    root = condition**0.5
    singular = torch.logspace(0, 1, size, base=condition, dtype=torch.float64) / root
    return rotations[0] @ torch.diag(singular) @ rotations[1]


def plant_fault(
    model: Path,
    out: Path,
    *,
    block: int,
    condition: float,
    seed: int,
    lift: bool = False,
) -> None:
    """Copy the checkpoint `model` to `out` with the fault planted in one block (or lifted again).

    Works on any model with separate v_proj and o_proj (llama, mistral, qwen2, qwen3, gemma2 …),
    grouped key-value heads and a bias on v_proj included, whose weights are one
    `model.safetensors`. `lift` applies the inverse of the same seed's fault: it takes a model back
    to health, up to the rounding of its 16-bit weights.
    """
    config = AutoConfig.from_pretrained(model)
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    with safe_open(model / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    prefix = f"model.layers.{block}.self_attn."
    v, o = tensors[prefix + "v_proj.weight"].double(), tensors[prefix + "o_proj.weight"].double()
    bias_name = prefix + "v_proj.bias"
    bias = tensors[bias_name].double() if bias_name in tensors else None
    generator = torch.Generator().manual_seed(seed)
    for kv_head in range(kv_heads):
        a = mixing_matrix(size, condition, generator)
        inverse = torch.linalg.inv(a)
        forward, backward = (inverse, a) if lift else (a, inverse)
        rows = slice(kv_head * size, (kv_head + 1) * size)
        v[rows] = forward @ v[rows]
        if bias is not None:
            bias[rows] = forward @ bias[rows]
        for head in range(kv_head * heads // kv_heads, (kv_head + 1) * heads // kv_heads):
            columns = slice(head * size, (head + 1) * size)
            o[:, columns] = o[:, columns] @ backward
    dtype = tensors[prefix + "v_proj.weight"].dtype
    tensors[prefix + "v_proj.weight"] = v.to(dtype)
    tensors[prefix + "o_proj.weight"] = o.to(dtype)
    if bias is not None:
        tensors[bias_name] = bias.to(dtype)
    out.mkdir(parents=True, exist_ok=True)
    for path in Path(model).iterdir():
        if path.is_file() and path.name != "model.safetensors" and path.parent != out:
            shutil.copyfile(path, out / path.name)
    with replace_file(out / "model.safetensors") as temporary:
        save_file(tensors, temporary, metadata=metadata)
