"""mlx-lm: the `quantization` entry of an MLX model's config.json, per layer.

Module path -> settings, or false for 16 bits; `group_size` and `bits` beside them are the defaults,
which nothing here uses. Paths are exact, and mlx-lm's own: it renames the blocks of gpt_neox and
gptj. To convert a model by it:

    layers = json.load(file)["quantization"]
    mlx_lm.convert(MODEL, quantize=True, q_group_size=layers["group_size"], q_bits=layers["bits"],
                   quant_predicate=lambda path, module: layers.get(path, False))

The predicate leaves embeddings and head, which no recipe names, at 16 bits; `convert` records the
same entry in config.json, where loading reads it. MLX quantizes by plain rounding, without AWQ, and
always with an offset a group. It skips linears whose rows are not a multiple of the default group
size, so that is the smallest in use. Nothing in MLX fuses linears. Checked with mlx-lm 0.32.2 on
mlx 0.32.4 (CPU).
"""

from collections.abc import Mapping

from awqscope.mixedprec.recipes.emitters.emitter import (
    Emitter,
    combine,
    describe_source,
    quantized_widths,
    to_json,
)
from awqscope.mixedprec.recipes.emitters.selectors import Selector, check_selectors, rename
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import Scheme, Width, bits_of

# Family -> how transformers' names of its modules begin, and how mlx-lm's do where that differs.
RENAMED = {"gpt_neox": ("gpt_neox.layers.", "model.h."), "gptj": ("transformer.h.", "model.h.")}


def write(recipe: Recipe, schemes: Mapping[Width, Scheme], family: str | None) -> str:
    """The recipe as mlx-lm's `quantization`, with a note beside it."""
    before, after = RENAMED.get(family or "", ("", ""))
    widths = rename(recipe.linear_widths(), lambda linear: after + linear.removeprefix(before))
    check_selectors([Selector(n, "exact", (n,), width) for n, width in widths.items()], widths)
    used = quantized_widths(recipe, schemes)
    quantization: dict[str, object] = {
        "group_size": min(scheme.group_size for scheme in used.values()),
        "bits": min(map(bits_of, used)),
        "mode": "affine",
    }
    for name, width in widths.items():
        scheme = used.get(width)
        quantization[name] = (
            {"group_size": scheme.group_size, "bits": scheme.bits} if scheme else False
        )
    note = [
        describe_source(recipe),
        "MLX rounds to nearest, with an offset a group: it is not AWQ; measure what comes out.",
    ]
    return to_json({"awqscope": note, "quantization": quantization}) + "\n"


EMITTER = Emitter(
    name="mlx-lm",
    purpose="the per-layer `quantization` of an MLX model, as mlx_lm.convert's predicate reads it",
    suffix=".json",
    write=write,
    holds=combine((2, 3, 4, 5, 6, 8), (32, 64, 128)),
    fused_by=(),
)
