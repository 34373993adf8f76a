"""What each stage of a run holds and does, counted from the model's shape as the code of that stage
says. Pure: sizes in, sizes out."""

from dataclasses import dataclass

from awqscope.diagnose.statistics.likelihood import tokens_a_chunk
from awqscope.mixedprec.awq.clipping import CLIP_TOKENS
from awqscope.mixedprec.awq.joint import KEPT_ELEMENTS
from awqscope.mixedprec.awq.losses import RATIOS
from awqscope.mixedprec.checkpoints.writer import SHARD_BYTES
from awqscope.mixedprec.models.streams import FLOAT_BYTES, batch_size

SEARCH, PROOF = "search", "proof"
# Effective weights and the codes that they come from, a weight; copies of a linear at work.
MIX_BYTES = 5
LINEAR_COPIES = 4
# float32 values of a token in a forward, and kept for a backward: of the stream's width, of the
# widest linear's.
FORWARD, BACKWARD = (8, 4), (20, 10)
# Tokens that clipping is judged on, at most: every n-th, as long as CLIP_TOKENS are left.
SAMPLED = 2 * CLIP_TOKENS - 1
# Vocabulary-wide float32 rows a position that scoring holds.
LOGIT_COPIES = 8
# The share of the tokens that an AWQ candidate is tried on before it drops out, on average.
RACED_SHARE = 0.3


@dataclass(frozen=True)
class Shape:
    """A model in numbers of float32 values. block, linear, unit: the largest one's parameters.
    unit_inputs: channels of each unit's input; lone: of those with one linear. widest: the most
    inputs or outputs of a linear. stored: bytes of all its tensors on disk. loads_whole: whether
    transformers may load a checkpoint of it in one go. ends: heads that are held at once, 2 where a
    checkpoint stores another than the reference has."""

    blocks: int
    channels: int
    vocabulary: int
    parameters: int
    block: int
    linear: int
    unit: int
    unit_inputs: tuple[int, ...]
    lone: tuple[int, ...]
    widest: int
    stored: int
    loads_whole: bool = True
    ends: int = 1


@dataclass(frozen=True)
class Texts:
    """What flows: windows and their length, of calibration and validation; distinct tokens."""

    calib: tuple[int, int]
    valid: tuple[int, int]
    distinct: int


@dataclass(frozen=True)
class Demand:
    """What a stage asks. working: bytes where blocks compute, entrance and head counted; chunked:
    whether windows may go one part after another. passes: over the weights for a chunk. flops:
    for a window; pass_flops: for a pass. weights: quantized in a pass. traffic: how often a stream
    is read and written through."""

    stage: str
    windows: int
    length: int
    streams: int
    working: int
    passes: int
    flops: float
    weights: float
    traffic: float
    pass_flops: float = 0.0
    chunked: bool = True


def count_activations(shape: Shape, length: int, kept: tuple[int, int]) -> int:
    """Bytes of activations of one batch. kept: values a token, as FORWARD says."""
    tokens = batch_size(length) * length
    narrow, wide = kept
    values = tokens * (narrow * shape.channels + wide * shape.widest)
    return FLOAT_BYTES * (values + 2 * length * length)


def count_head(shape: Shape) -> int:
    """Bytes of the heads, and of the logits at work."""
    logits = tokens_a_chunk(shape.vocabulary) * shape.vocabulary
    heads = shape.ends * shape.vocabulary * shape.channels
    return FLOAT_BYTES * (heads + LOGIT_COPIES * logits)


def count_mixes(shape: Shape, mixes: int) -> int:
    """Bytes of a block, of `mixes` sets of effective weights, and of making them."""
    making = LINEAR_COPIES * shape.linear
    return FLOAT_BYTES * (shape.block + making) + MIX_BYTES * mixes * shape.block


def count_search(shape: Shape, texts: Texts) -> int:
    """Bytes of the search of a block, streams left out."""
    windows, length = texts.calib
    grams = sum(min(windows * length, inputs) * inputs for inputs in shape.lone)
    samples = SAMPLED * sum(shape.unit_inputs)
    trials = 4 * max(shape.linear, shape.unit) + min(KEPT_ELEMENTS, RATIOS * shape.unit)
    at_once = shape.block + max(grams + samples + trials, shape.block)
    return FLOAT_BYTES * at_once + count_activations(shape, length, FORWARD)


def count_whole_proof(shape: Shape, length: int) -> int:
    """Bytes of proving a checkpoint that transformers loads whole."""
    return FLOAT_BYTES * shape.parameters + shape.stored // 3 + count_proof(shape, length)


def count_proof(shape: Shape, length: int) -> int:
    """Bytes of proving a checkpoint block by block."""
    one = count_mixes(shape, 1)
    logits = FLOAT_BYTES * (2 * shape.vocabulary * shape.channels + 3 * length * shape.vocabulary)
    scoring = logits + count_head(shape) - FLOAT_BYTES * shape.vocabulary * shape.channels
    return max(one, scoring) + count_activations(shape, length, FORWARD)


def list_demands(
    shape: Shape, texts: Texts, sweep_streams: int, refine_streams: int
) -> list[Demand]:
    """What each stage asks, at two widths."""
    (calib, calib_length), (valid, length) = texts.calib, texts.valid
    entrance = 2 * FLOAT_BYTES * texts.distinct * shape.channels
    head = count_head(shape)
    forward = count_activations(shape, length, FORWARD)
    backward = count_activations(shape, length, BACKWARD)
    token = 2 * shape.block + 4 * length * shape.channels
    depth = shape.blocks / 2
    embedding = 2 * shape.vocabulary * shape.channels
    linears = shape.blocks * shape.block

    def swept(stage: str, streams: int) -> Demand:
        working = max(entrance, head, count_mixes(shape, 2) + forward)
        flops = length * token * (2 * shape.blocks + (streams - 2) * depth)
        return Demand(stage, valid, length, streams, working, 1, flops, 2 * linears, 2 * depth)

    raced = RATIOS * RACED_SHARE
    grams = sum(inputs * inputs for inputs in shape.lone) * shape.channels
    return [
        Demand(
            SEARCH,
            calib,
            calib_length,
            5 + (len(shape.unit_inputs) - len(shape.lone) > 2),
            max(entrance, count_search(shape, texts)),
            1,
            calib_length * token * shape.blocks * (1 + 2 * raced),
            2 * (RATIOS + 10) * linears,
            6 * shape.blocks,
            pass_flops=shape.blocks * (2 * 2 * RATIOS * grams + 2 * 2 * 10 * 128 * shape.block),
            chunked=False,
        ),
        swept("sweep", sweep_streams),
        Demand(
            "estimate",
            valid,
            length,
            shape.blocks + 1,
            max(entrance, head, count_mixes(shape, 2) + backward),
            2,
            length * token * shape.blocks * 6,
            2 * linears,
            2,
        ),
        swept("refine", refine_streams),
        Demand(
            "requantize",
            0,
            length,
            0,
            SHARD_BYTES + max(count_mixes(shape, 1) + 2 * shape.block, 2 * embedding),
            1,
            0,
            linears,
            0,
        ),
        Demand(
            PROOF,
            valid,
            length,
            3,
            max(entrance, count_proof(shape, length)),
            3,
            length * token * shape.blocks * 3,
            2 * linears,
            2 * shape.blocks,
            chunked=False,
        ),
    ]
