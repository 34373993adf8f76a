"""GPTQModel: the arguments of a QuantizeConfig, whose `dynamic` holds the widths, in JSON.

`dynamic` maps regular expressions, read by `match` in the order written, to what differs from the
configuration around them: `+:` sets, `-:` leaves a module at 16 bits. The first that matches wins.
All widths are listed, the common one too, and fused names with them, because vLLM and SGLang look
those up. Read it as `QuantizeConfig(**json.load(file))`; the note is in `meta`, which GPTQModel
stores and does not read.

GPTQ is another method than AWQ, and its servers know no zero points, so only symmetric schemes are
written. transformers ignores `dynamic`: load the result with GPTQModel, vLLM or SGLang. Checked
with gptqmodel 7.7.0.
"""

from collections.abc import Mapping

from awqscope.mixedprec.recipes.emitters.emitter import (
    Emitter,
    combine,
    describe_source,
    quantized_widths,
    to_json,
)
from awqscope.mixedprec.recipes.emitters.selectors import check_selectors, make_patterns
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import FP16_BITS, Scheme, Width


def write(recipe: Recipe, schemes: Mapping[Width, Scheme], family: str | None) -> str:
    """The recipe as arguments of GPTQModel's QuantizeConfig."""
    widths = recipe.linear_widths()
    selectors = make_patterns(widths, fused=True)
    check_selectors(selectors, widths)
    base = next(iter(quantized_widths(recipe, schemes).values()))
    dynamic = {
        f"{'-' if selector.width == FP16_BITS else '+'}:{selector.pattern}": (
            {} if selector.width == FP16_BITS else _arguments(schemes[selector.width])
        )
        for selector in selectors
    }
    note = [
        describe_source(recipe),
        "GPTQ is not AWQ: these widths were chosen by AWQ's damage; measure what comes out.",
        "vLLM and SGLang load 4 and 8 bits; transformers ignores `dynamic`.",
    ]
    config = {**_arguments(base), "desc_act": False, "dynamic": dynamic, "meta": {"awqscope": note}}
    return to_json(config) + "\n"


def _arguments(scheme: Scheme) -> dict[str, int | bool]:
    return {"bits": scheme.bits, "group_size": scheme.group_size, "sym": scheme.symmetric}


EMITTER = Emitter(
    name="gptqmodel",
    purpose="arguments of GPTQModel's QuantizeConfig, the widths in `dynamic` (symmetric only)",
    suffix=".json",
    write=write,
    holds=combine(range(2, 9), symmetric=(True,)),
    fused_by=("vLLM", "SGLang"),
)
