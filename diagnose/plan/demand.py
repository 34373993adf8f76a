"""What each stage of a run holds and does, counted from the model's shape as the code of that stage
says. Pure: sizes in, sizes out."""

from dataclasses import dataclass

from awqscope.diagnose.inside.noise import MOST_WINDOWS
from awqscope.diagnose.statistics.likelihood import tokens_a_chunk
from awqscope.diagnose.sweep.likely_rows import FEWEST_BRANCHES, FEWEST_ROWS
from awqscope.mixedprec.awq.clipping import CLIP_LEVELS, CLIP_TOKENS
from awqscope.mixedprec.awq.joint import KEPT_ELEMENTS
from awqscope.mixedprec.awq.losses import RATIOS
from awqscope.mixedprec.checkpoints.writer import SHARD_BYTES
from awqscope.mixedprec.models.streams import FLOAT_BYTES, batch_size

SEARCH, SWEEP, PROOF = "search", "sweep", "proof"
# Effective weights and the codes that they come from, a weight; copies of a linear at work.
MIX_BYTES = 5
LINEAR_COPIES = 4
# float32 values of a token in a forward, and kept for a backward: of the stream's width, of the
# widest linear's.
FORWARD, BACKWARD = (8, 4), (20, 10)
# Tokens that clipping is judged on, at most: every n-th, as long as CLIP_TOKENS are left.
SAMPLED = 2 * CLIP_TOKENS - 1
# Vocabulary-wide float32 rows a position that scoring holds.
LOGIT_COPIES = 12
# The share of the tokens that an AWQ scaling is tried on before it drops out, on average.
RACED_SHARE = 0.3
# Tokens of a unit that the scalings of a search that need not be exact are raced on, all together.
NEARLY_TOKENS = 25_000
# The share of the head's rows that most streams of a sweep are scored by, where they are many.
LIKELY_SHARE = 1 / 6
# Bit widths that a run searches and estimates at: its own, and the one that units may be promoted
# to.
WIDTHS = 2
# Streams of a sweep that go through every block: the reference's and the uniform model's.
TRUNKS = 2
# What an addition and a multiplication count as.
PRODUCT_FLOPS = 2
# The stream through the blocks, and what enters and leaves attention and the MLP, which scales are
# judged by; where three units of a block are judged so, one more.
SEARCH_STREAMS, JOINT_UNITS = 5, 2
# Channels that share a scale, as is usual: of what is planned only a part of the time hangs on it.
GROUP = 128
# The streams that a proof compares: of the reference, of the recipe's model as it is simulated, and
# of the checkpoint.
PROOF_STREAMS = 3
# A forward, and a backward that takes twice as much.
FORWARDS_A_GRADIENT = 3


@dataclass(frozen=True)
class Shape:
    """A model in numbers."""

    blocks: int
    # Of the stream between blocks.
    channels: int
    vocabulary: int
    parameters: int
    # Parameters of the largest block, linear and unit.
    block: int
    linear: int
    unit: int
    # Channels of each unit's input, and of the inputs of those units that are one linear.
    unit_inputs: tuple[int, ...]
    lone: tuple[int, ...]
    # The most inputs or outputs of a linear.
    widest: int
    # Bytes of all its tensors on disk.
    stored: int
    # Whether transformers may load a checkpoint of it in one go.
    loads_whole: bool = True
    # Heads that are held at once: 2 where a checkpoint stores another than the reference has.
    ends: int = 1

    def count_linears(self) -> int:
        """Weights of all blocks' linears, at most."""
        return self.blocks * self.block

    def count_head_flops(self) -> int:
        """FLOP of a token's logits."""
        return PRODUCT_FLOPS * self.vocabulary * self.channels

    def count_token_flops(self, length: int) -> int:
        """FLOP of a token in one block, in windows of `length` tokens: its products with the
        weights, and attention's."""
        return PRODUCT_FLOPS * self.block + 2 * PRODUCT_FLOPS * length * self.channels


@dataclass(frozen=True)
class Flow:
    """What flows through a run."""

    # Windows and the tokens of each, of calibration and of validation.
    calib: tuple[int, int]
    valid: tuple[int, int]
    # Distinct tokens of both.
    distinct: int
    # Windows of validation that the views of blocks, and units, are measured on.
    sampled: int
    # Whether the search makes autoawq's very choices.
    exact: bool = True


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a stage asks of the machine."""

    stage: str
    # Windows that flow through it, and the tokens of each.
    windows: int
    length: int
    # Windows besides, that its trunks alone flow through, and the FLOP for one.
    beside: int = 0
    beside_flops: float = 0.0
    # Streams that it keeps at once.
    streams: int
    # Bytes where blocks compute, entrance and head counted.
    working: int
    # Passes over the weights for a chunk of the windows.
    passes: int
    # FLOP for a window, those of them that are of the head, and for a pass whatever the windows.
    flops: float = 0.0
    head_flops: float = 0.0
    pass_flops: float = 0.0
    # Weights that are quantized in a pass.
    weights: float
    # How often a stream is read and written through.
    traffic: float = 0.0
    # Whether windows may go one part after another.
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


def count_noise(shape: Shape, texts: Flow) -> int:
    """Bytes of measuring the noise floor of float32: a block and a few windows in both types."""
    windows, length = texts.valid
    both = 3 * FLOAT_BYTES
    stream = min(windows, MOST_WINDOWS) * length * shape.channels
    return both * (shape.block + stream) + 2 * count_activations(shape, length, FORWARD)


def count_search(shape: Shape, texts: Flow) -> int:
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


def list_demands(shape: Shape, texts: Flow, sweep_streams: int, exact_streams: int) -> list[Demand]:
    """What each stage asks, in the order of the stages. sweep_streams, exact_streams: streams that
    the sweep and the exact measurement of units keep at once."""
    return [
        demand_search(shape, texts),
        demand_sweep(SWEEP, shape, texts, sweep_streams),
        demand_estimate(shape, texts),
        demand_sweep("exact", shape, texts, exact_streams),
        demand_requantize(shape, texts),
        demand_proof(shape, texts),
    ]


def count_entrance(shape: Shape, texts: Flow) -> int:
    """Bytes of the embeddings of the texts' tokens, and of reading them."""
    return 2 * FLOAT_BYTES * texts.distinct * shape.channels


def demand_search(shape: Shape, texts: Flow) -> Demand:
    """What the search for scales and clips asks: one forward of each window, and of the tokens that
    scalings are raced on one at each ratio, and at each width where it must be exact; lone linears
    by their Gram matrix, clips by those of each group."""
    windows, length = texts.calib
    token = shape.count_token_flops(length)
    widths = WIDTHS if texts.exact else 1
    raced = widths * RATIOS * RACED_SHARE if texts.exact else 0
    sampled = 0 if texts.exact else min(NEARLY_TOKENS, RATIOS * windows * length) * token
    grams = sum(inputs * inputs for inputs in shape.lone) * shape.channels
    clips = CLIP_LEVELS * GROUP * shape.block
    joint = len(shape.unit_inputs) - len(shape.lone)
    return Demand(
        stage=SEARCH,
        windows=windows,
        length=length,
        streams=SEARCH_STREAMS + (joint > JOINT_UNITS),
        working=max(count_entrance(shape, texts), count_search(shape, texts)),
        passes=1,
        flops=length * token * shape.blocks * (1 + raced),
        pass_flops=shape.blocks
        * (sampled + PRODUCT_FLOPS * (widths * RATIOS * grams + WIDTHS * clips)),
        weights=(widths * RATIOS + WIDTHS * CLIP_LEVELS) * shape.count_linears(),
        traffic=(SEARCH_STREAMS + 1) * shape.blocks,
        chunked=False,
    )


def count_scored(shape: Shape, streams: int) -> float:
    """How many streams' logits the head of a sweep makes, counted by the rows it reads. Each of the
    two trunks is looked through for its largest values too."""
    near = shape.vocabulary >= FEWEST_ROWS and streams - TRUNKS >= FEWEST_BRANCHES
    return 2 * TRUNKS + (streams - TRUNKS) * (LIKELY_SHARE if near else 1)


def count_end_flops(shape: Shape, length: int) -> int:
    """FLOP of a token from one end of the model to the other, in windows of `length` tokens."""
    return shape.count_token_flops(length) * shape.blocks + shape.count_head_flops()


def demand_sweep(stage: str, shape: Shape, texts: Flow, streams: int) -> Demand:
    """What a pass with `streams` streams asks: two of them go through every block, the others
    through half on average, from the block that they differ at."""
    windows, length = texts.sampled, texts.valid[1]
    forward = count_activations(shape, length, FORWARD)
    halves = shape.blocks / 2
    forwards = TRUNKS * shape.blocks + (streams - TRUNKS) * halves
    scored = count_scored(shape, streams)
    return Demand(
        stage=stage,
        windows=windows,
        length=length,
        beside=texts.valid[0] - windows if stage == SWEEP else 0,
        beside_flops=TRUNKS * length * count_end_flops(shape, length),
        streams=streams,
        working=max(
            count_entrance(shape, texts),
            count_head(shape),
            count_mixes(shape, 2) + forward,
            count_noise(shape, texts),
        ),
        passes=1,
        flops=length
        * (shape.count_token_flops(length) * forwards + shape.count_head_flops() * scored),
        head_flops=length * shape.count_head_flops() * scored,
        weights=WIDTHS * shape.count_linears(),
        traffic=2 * halves,
    )


def demand_estimate(shape: Shape, texts: Flow) -> Demand:
    """What the estimator asks: a gradient at each width through every block, and a stream before
    each of them kept for it."""
    windows, length = texts.sampled, texts.valid[1]
    backward = count_activations(shape, length, BACKWARD)
    gradients = WIDTHS * FORWARDS_A_GRADIENT * shape.blocks
    return Demand(
        stage="estimate",
        windows=windows,
        length=length,
        streams=shape.blocks + 1,
        working=max(
            count_entrance(shape, texts), count_head(shape), count_mixes(shape, 2) + backward
        ),
        passes=2,
        flops=length
        * (
            shape.count_token_flops(length) * gradients
            + FORWARDS_A_GRADIENT * shape.count_head_flops()
        ),
        head_flops=length * FORWARDS_A_GRADIENT * shape.count_head_flops(),
        weights=WIDTHS * shape.count_linears(),
        traffic=2,
    )


def demand_requantize(shape: Shape, texts: Flow) -> Demand:
    """What writing a checkpoint asks: a block, or an end of the model, beside a shard of the
    file."""
    block = count_mixes(shape, 1) + 2 * shape.block
    embedding = 2 * shape.vocabulary * shape.channels
    return Demand(
        stage="requantize",
        windows=0,
        length=texts.valid[1],
        streams=0,
        working=SHARD_BYTES + max(block, 2 * embedding),
        passes=1,
        weights=shape.count_linears(),
    )


def demand_proof(shape: Shape, texts: Flow) -> Demand:
    """What the proof asks where it loads the checkpoint block by block."""
    windows, length = texts.valid
    return Demand(
        stage=PROOF,
        windows=windows,
        length=length,
        streams=PROOF_STREAMS,
        working=max(count_entrance(shape, texts), count_proof(shape, length)),
        passes=PROOF_STREAMS,
        flops=length * PROOF_STREAMS * count_end_flops(shape, length),
        # Simulated once, and decoded once.
        weights=2 * shape.count_linears(),
        traffic=2 * shape.blocks,
        chunked=False,
    )
