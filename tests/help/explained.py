"""An explanation made by hand, as `awqscope explain --json` prints it."""

from typing import Any

RIVALS = {
    "reference": {
        "token": 7,
        "text": " in",
        "probability_reference": 0.5,
        "probability_uniform": 0.2,
    },
    "other": {"token": 9, "text": "\n", "probability_reference": 0.1, "probability_uniform": 0.4},
}
CONTEST = {
    **RIVALS,
    "position": 1,
    "margin_reference": 1.6,
    "margin_uniform": -0.7,
    "tied": False,
}


def make_block(block: int, *, breaks: bool, restores: bool) -> dict[str, Any]:
    return {
        "block": block,
        "breaks": breaks,
        "isolated_margin": -0.5 if breaks else 1.5,
        "isolated_probability": 0.3,
        "restores": restores,
        "restored_margin": 1.1 if restores else -0.6,
        "restored_probability": 0.4,
    }


def make_entry(prompt: str = "the order", **changes: Any) -> dict[str, Any]:
    """A prompt of two tokens that parts after one of three; block 5 is to blame."""
    texts = ["the", " order", " of", " in", " it"]
    pieces = [
        {
            "token": place,
            "text": text,
            "part": "prompt" if place < 2 else "continuation",
            "kl_uniform": place * 0.1 if place else None,
            "kl_mixed": place * 0.01 if place else None,
            "kl_repaired": place * 0.02 if place else None,
        }
        for place, text in enumerate(texts)
    ]

    def continuation(*pieces: str) -> dict[str, Any]:
        tokens = list(range(len(pieces)))
        return {"text": "".join(pieces), "tokens": tokens, "pieces": list(pieces), "ended": False}

    entry = {
        "prompt": prompt,
        "prompt_tokens": 2,
        "reference": continuation(" of", " in", " it"),
        "uniform": continuation(" of", "\n", "end"),
        "common": 1,
        "parting": CONTEST,
        "closest": None,
        "blocks": [make_block(n, breaks=n == 5, restores=n == 5) for n in range(8)],
        "repair": {
            "units": ["5.o"],
            "extra_bytes": 32_512,
            "proved": True,
            "tried": 40,
            "single": ["5.o"],
            "followed": {"repairs": True, "parts_at": None, "mean_kl": 0.01},
        },
        "mixed": {"repairs": True, "parts_at": 2, "mean_kl": 0.01},
        "pieces": pieces,
    }
    return {**entry, **changes}


def make_asked(*entries: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The whole of what is printed."""
    asked = {
        "schema": 1,
        "run": "demo",
        "model": "m",
        "bits": 4,
        "rescue_bits": 8,
        "tokens": 3,
        "units": 32,
        "recipe": "flagged",
        "decoding": "held",
        "prompts": list(entries or [make_entry()]),
    }
    return {**asked, **changes}
