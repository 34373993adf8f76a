"""Which checkpoints a proof by transformers says something about."""

from mixedprec.family import EXPERTS, Family
from mixedprec.recipe import Recipe
from mixedprec.scheme import FP16_BITS


def explain_unproved(recipe: Recipe, family: Family, model_type: str) -> str | None:
    """Why transformers cannot prove the checkpoint of a recipe; None where it can.

    transformers 5.23 stacks experts by one scheme for the whole model: blocks of another width load
    wrongly without a word, and experts at 16 bits not at all. Families with a loader of their own
    for weights can have one that takes no packed ones.
    """
    widths = {e.bits for e in recipe.units if e.unit.endswith(f".{EXPERTS}")}
    if len(widths) > 1 or widths == {FP16_BITS}:
        shown = " and ".join(map(str, sorted(widths)))
        return f"transformers does not load experts of {shown} bits rightly"
    if not family.loads_packed:
        return f"transformers does not load packed linears of a {model_type}"
    return None
