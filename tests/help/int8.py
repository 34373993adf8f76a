"""An answer of the study of int8 inputs, made by hand."""

from collections.abc import Collection

from awqscope.diagnose.studies.int8_inputs.answer import (
    INT8,
    LLM_INT8,
    SMOOTHQUANT,
    Activations,
    BlockDamage,
    BlockWeights,
    Damage,
    Measured,
    Method,
)

BLOCKS = 8
TYPICAL = 0.0004


def make_damage(kl: float) -> Damage:
    return Damage(kl=(kl, kl * 0.9, kl * 1.1), delta_ppl=(kl, 0.0, 2 * kl), top1_agreement=0.99)


def make_measured(method: Method, refusing: Collection[int] = ()) -> Measured:
    """What a method found, with some blocks a hundred times the others."""
    damages = [make_damage(TYPICAL * (100 if n in refusing else 1)) for n in range(BLOCKS)]
    return Measured(
        method=method,
        whole=make_damage(0.05 if refusing else 0.003),
        blocks=[
            BlockDamage(
                block=number,
                isolated=damage,
                cumulative=damage,
                restored=damage,
                refuses=number in refusing,
                z=12.0 if number in refusing else 0.3,
                reason=f"KL {100 if number in refusing else 1}.0× the other blocks' median",
            )
            for number, damage in enumerate(damages)
        ],
        kept={"5.qkv": 0.0, "5.down": 0.021} if method == LLM_INT8 else None,
        alphas={"5.qkv": 0.4, "5.down": 0.8} if method == SMOOTHQUANT else None,
    )


def make_activations(*methods: Measured) -> Activations:
    """An answer with these methods, or with one that block 3 refuses and two that repair it, of a
    run that flagged block 5."""
    weights = [
        BlockWeights(
            block=n, kl=(0.2, 0.18, 0.22) if n == 5 else (0.004, 0.003, 0.005), refuses=n == 5
        )
        for n in range(BLOCKS)
    ]
    found = methods or (
        make_measured(INT8, {3}),
        make_measured(LLM_INT8),
        make_measured(SMOOTHQUANT),
    )
    return Activations(windows=[0, 1], tokens=126, bits=4, weights=weights, methods=list(found))
