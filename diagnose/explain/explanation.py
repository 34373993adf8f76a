"""What is said of a prompt: plain data, as `awqscope explain --json` prints it.

Logits' margins are in nats: the log of how many times likelier the reference's token is than the
likeliest other one; negative where that one is preferred. Every number after the prompt is taken on
the reference's own continuation.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from awqscope.mixedprec.files.untrusted import read_json

SCHEMA = 1


@dataclass(frozen=True)
class Piece:
    """A token of the text read: prompt, then the reference's continuation. kl_*: KL in nats of what
    each model predicts in its place; None for the text's first and for models there are not."""

    token: int
    text: str
    part: str
    kl_uniform: float | None
    kl_mixed: float | None
    kl_repaired: float | None


@dataclass(frozen=True)
class Continuation:
    """How a model continues a prompt, token by token. ended: whether it ended the text itself."""

    text: str
    tokens: tuple[int, ...]
    pieces: tuple[str, ...]
    ended: bool


@dataclass(frozen=True)
class Rival:
    """A token that competes at one position, with its probability by either model."""

    token: int
    text: str
    probability_reference: float
    probability_uniform: float


@dataclass(frozen=True)
class Rivals:
    """Two tokens at a position of the continuation, from 0: the reference's, and the other one
    that uniform prefers or, where nothing parts, would next prefer. margin_*: the reference's
    token's. tied: the margins are within rounding, so that there is nothing to explain."""

    position: int
    reference: Rival
    other: Rival
    margin_reference: float
    margin_uniform: float
    tied: bool


@dataclass(frozen=True)
class BlockBlame:
    """One block at the parting position. breaks: quantized alone it takes the reference's token
    away. restores: restored alone it brings that token back. Margins and probabilities are of that
    token."""

    block: int
    breaks: bool
    isolated_margin: float
    isolated_probability: float
    restores: bool
    restored_margin: float
    restored_probability: float


@dataclass(frozen=True)
class Followed:
    """How far a model says what the reference does. parts_at: the first position of the
    continuation where its likeliest token is another; None where the whole is followed. repairs:
    whether that is later than uniform parts; None where uniform does not."""

    repairs: bool | None
    parts_at: int | None
    mean_kl: float


@dataclass(frozen=True)
class Repair:
    """The cheapest set found (`cheapest.Cheapest`). single: units each of which repairs alone,
    the cheapest first."""

    units: tuple[str, ...]
    extra_bytes: int
    proved: bool
    tried: int
    single: tuple[str, ...]
    followed: Followed


@dataclass(frozen=True)
class Explanation:
    """All that is said of one prompt. parting: None where nothing parts; closest: then, where it
    came closest. blocks: empty, and repair None, without a parting or where it is tied; repair is
    None too where no set was found. mixed: of the run's own recipe, None while it has none."""

    prompt: str
    prompt_tokens: int
    reference: Continuation
    uniform: Continuation
    common: int
    parting: Rivals | None
    closest: Rivals | None
    blocks: tuple[BlockBlame, ...]
    repair: Repair | None
    mixed: Followed | None
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Explanations:
    """What was asked of a run, and what is said of each prompt. recipe: the kind of the run's own,
    None while it has none. decoding: `held` or `streamed` (see `greedy.py`)."""

    run: str
    model: str
    bits: int
    rescue_bits: int
    tokens: int
    units: int
    recipe: str | None
    decoding: str
    prompts: tuple[Explanation, ...]

    def to_json(self) -> dict[str, Any]:
        """As printed and kept."""
        return {"schema": SCHEMA, **asdict(self)}


def read_explained(path: Path) -> Mapping[str, Any] | None:
    """What `awqscope explain -o` wrote; None for anything else."""
    try:
        found = read_json(path)
        entries = found["prompts"]
        prompt = {field.name for field in fields(Explanation)}
        known = found["schema"] == SCHEMA and all(set(entry) >= prompt for entry in entries)
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if known and entries else None
