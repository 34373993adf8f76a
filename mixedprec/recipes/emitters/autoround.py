"""AutoRound: `scheme` and `layer_config`, the arguments of `AutoRound(model, …)`, in JSON.

`layer_config` maps names to settings. A key that is a linear's full name is taken as that; any
other is searched for as a regular expression, and one that finds nothing is passed over with a
warning. So every linear is listed by its full name, those at 16 bits too: AutoRound gives its
scheme to every linear of a block that is not listed. Read it as

    arguments = json.load(file); arguments.pop("awqscope")
    AutoRound(model, tokenizer, **arguments)

AutoRound's own method is not AWQ. It refuses 8 bits with zero points, and leaves a linear whose
shape is not a multiple of 32 at 16 bits. In its own format vLLM and SGLang load symmetric weights
only. Checked with auto-round 0.16.1.
"""

from collections.abc import Mapping

from awqscope.mixedprec.recipes.emitters.emitter import (
    Emitter,
    combine,
    describe_source,
    quantized_widths,
    to_json,
)
from awqscope.mixedprec.recipes.emitters.selectors import Selector, check_selectors
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.scheme import FP16_BITS, Scheme, Width


def write(recipe: Recipe, schemes: Mapping[Width, Scheme], family: str | None) -> str:
    """The recipe as arguments of AutoRound."""
    widths = recipe.linear_widths()
    check_selectors([Selector(n, "exact", (n,), width) for n, width in widths.items()], widths)
    base = next(iter(quantized_widths(recipe, schemes).values()))
    note = [
        describe_source(recipe),
        "AutoRound is not AWQ: these widths were chosen by AWQ's damage; measure what comes out.",
        "vLLM and SGLang load symmetric weights only from AutoRound's own format.",
    ]
    arguments = {
        "awqscope": note,
        "scheme": {**_settings(base), "act_bits": 16},
        "layer_config": {
            name: {"bits": FP16_BITS, "data_type": "float"}
            if width == FP16_BITS
            else _settings(schemes[width])
            for name, width in widths.items()
        },
    }
    return to_json(arguments) + "\n"


def _settings(scheme: Scheme) -> dict[str, int | bool | str]:
    return {
        "bits": scheme.bits,
        "group_size": scheme.group_size,
        "sym": scheme.symmetric,
        "data_type": "int",
    }


EMITTER = Emitter(
    name="autoround",
    purpose="arguments of AutoRound, the widths in `layer_config` (8 bits symmetric only)",
    suffix=".json",
    write=write,
    holds=combine(range(2, 8)) | combine((8,), symmetric=(True,)),
    fused_by=("vLLM", "SGLang"),
)
