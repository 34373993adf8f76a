"""What a run will take, before it starts: memory by stage, chunks of the text, passes over the
weights, bytes and time.

Pure: sizes in, sizes out. The sizes of a stage are counted from what it holds at once, as the code
of that stage says, and were set beside measured peaks (examples/benchmarks/memory.py); they err to
the safe side. Streams take what a stage leaves of the budget, and files the rest.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from awqscope.diagnose.entries.plan import MemoryPlan, StagePlan
from awqscope.diagnose.machine.tasks import CHUNKS_A_WORKER
from awqscope.diagnose.plan.demand import (
    FORWARD,
    PROOF,
    SEARCH,
    Demand,
    Flow,
    Shape,
    count_activations,
    count_whole_proof,
    list_demands,
)
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.streams import FLOAT_BYTES, batch_size

MIB = 2**20
# Stages whose tasks several processes share.
SHARED = (SEARCH, "sweep", "estimate", "exact")
# Those of them that compute in the run's precision.
MEASURING = SHARED[1:]
PLANNED = (*SHARED, "requantize", PROOF)
# What the allocator, lazily imported modules and a stage's bookkeeping add.
SLACK_BYTES = 48 * MIB
SLACK_SHARE = 0.05
# A scored token in the result: NLL, KL, agreement; and in the tables: everything known of it.
SCORE_BYTES, TOKEN_BYTES = 9, 250
# Of the free disk, what streams may take.
DISK_SHARE = 0.5


@dataclass(frozen=True)
class Rates:
    """What the machine does in a second: FLOP of float32 products, weights quantized, bytes read
    and written; FLOP of products in the run's precision, None where that is float32; and, for a
    run in float32, FLOP of products in bfloat16, None where they were not measured."""

    flops: float
    weights: float
    bytes: float
    reduced: float | None = None
    offered: float | None = None


@dataclass(frozen=True)
class Machine:
    """What a run may use. budget: bytes of each kind of memory, the host's and a device's. held:
    what a process has before it begins. workers: processes that share the work; sharing: the most
    of them on one machine, beside this one, which hands out; 0 where this one works. on_device:
    whether blocks compute on another device; device_free: bytes that one has, None where that is
    not known. disk: bytes free for streams. resting: bytes that the process which started the
    proof's process keeps meanwhile."""

    budget: int
    held: int
    rates: Rates
    workers: int = 1
    sharing: int = 0
    on_device: bool = False
    device_free: int | None = None
    disk: int = 2**62
    resting: int = 0

    def share(self, stage: str) -> int:
        """Bytes of the host that a process of a stage may have."""
        if stage == PROOF:
            return self.budget - self.resting
        return share_budget(self.budget, self.held, stage, self.sharing)


def share_budget(budget: int, held: int, stage: str, sharing: int) -> int:
    """Bytes of the host that a process of a stage may have. sharing: the most processes on one
    machine that share the work, 0 where only this one works. The process that hands out tasks keeps
    `held` bytes meanwhile; in the search it takes the stream through the blocks, and has a share of
    its own."""
    if stage not in SHARED or not sharing:
        return budget
    if stage == SEARCH:
        return budget // (sharing + 1)
    return (budget - held) // sharing


def choose_chunk(demand: Demand, shape: Shape, room: int, machine: Machine) -> int:
    """Windows a chunk, whole batches: as many as cost least in passes over the weights and in what
    is spilled, and leave enough of the disk."""
    size = batch_size(demand.length)
    if not demand.chunked or demand.windows <= size:
        return max(1, demand.windows)
    stream = demand.length * shape.channels * FLOAT_BYTES * demand.streams
    fitting = max(1, room // stream // size) * size
    most = -(-demand.windows // size) * size
    choices = {min(fitting, most), most}
    doubled = min(choices) * 2
    while doubled < most:
        choices.add(doubled)
        doubled *= 2

    def cost(chunk: int) -> tuple[float, int]:
        chunks = -(-demand.windows // chunk)
        spilled = max(0, chunk * stream - room)
        if spilled > machine.disk * DISK_SHARE and chunk > size:
            return float("inf"), chunk
        again = demand.passes * shape.stored / machine.rates.bytes
        again += demand.weights / machine.rates.weights
        moved = demand.traffic * demand.windows * stream * spilled / (chunk * stream)
        return chunks * again + moved / machine.rates.bytes, -chunk

    return min(sorted(choices), key=cost)


def with_slack(working: int, tokens: int) -> int:
    """What a stage holds besides streams: what works, what is kept of the text's tokens, and a
    slack for all that is not counted."""
    return working + int(working * SLACK_SHARE) + SLACK_BYTES + TOKEN_BYTES * tokens


def plan_stage(
    demand: Demand, shape: Shape, machine: Machine, fixed_chunk: int | None, most: int | None
) -> StagePlan:
    """A stage's plan. fixed_chunk: windows a chunk where that was decided before; most: where more
    are not wanted."""
    tokens = (demand.windows + demand.beside) * demand.length
    # With a device the host reads a block, and holds what enters the first.
    on_device = machine.on_device and demand.stage in SHARED
    working = FLOAT_BYTES * shape.block if on_device else demand.working
    computing = demand.working
    if demand.stage == SEARCH and machine.sharing:
        # A worker's device is the one that the stream is taken through the blocks on, too.
        computing += FLOAT_BYTES * shape.block + count_activations(shape, demand.length, FORWARD)
    least = fixed = with_slack(working, tokens)
    share = machine.share(demand.stage)
    if demand.stage == PROOF and shape.loads_whole:
        whole = with_slack(count_whole_proof(shape, demand.length), tokens)
        fixed = whole if machine.held + whole <= share else fixed
    room = max(0, share - machine.held - fixed)
    chunk = fixed_chunk or choose_chunk(demand, shape, room, machine)
    if demand.chunked and not fixed_chunk:
        size = batch_size(demand.length)
        most = most or chunk
        if machine.workers > 1:
            most = min(most, -(-demand.windows // (machine.workers * CHUNKS_A_WORKER)))
        chunk = min(chunk, max(1, most // size) * size)
    chunk = min(chunk, demand.windows) if demand.windows else 0
    chunks = -(-demand.windows // chunk) if chunk else 1
    per_window = demand.length * shape.channels * FLOAT_BYTES * demand.streams
    scores = SCORE_BYTES * demand.streams * chunk * demand.length
    streams = per_window * chunk
    spilled = max(0, streams + scores - room)
    passes = demand.passes * chunks
    read = passes * shape.stored
    flops = demand.flops * demand.windows + demand.beside_flops * demand.beside
    flops += demand.pass_flops * chunks
    moved = (
        demand.traffic * per_window * demand.windows * (min(1, spilled / streams) if streams else 0)
    )
    shared = machine.workers if demand.stage in SHARED else 1
    # Blocks alone are in the run's precision, and only where they are measured.
    measuring = demand.stage in MEASURING
    exact = demand.head_flops * demand.windows if measuring else flops
    aside = demand.beside_flops * demand.beside / machine.rates.flops
    in_blocks = (flops - exact) / (machine.rates.reduced or machine.rates.flops)
    offered = machine.rates.offered
    saved = in_blocks - (flops - exact) / offered if offered else 0.0
    seconds = (
        exact / machine.rates.flops
        + in_blocks
        + demand.weights * chunks / machine.rates.weights
        + (read + moved) / machine.rates.bytes
    )
    return StagePlan(
        stage=demand.stage,
        windows=demand.windows,
        beside=demand.beside,
        beside_seconds=round(aside / shared, 1),
        chunk_windows=chunk,
        chunks=chunks,
        passes=passes,
        streams=demand.streams,
        stream_bytes=streams,
        spilled_bytes=min(spilled, streams),
        fixed_bytes=fixed,
        least_bytes=least,
        peak_bytes=machine.held + fixed + min(streams + scores, room),
        device_bytes=with_slack(computing, 0) if on_device else 0,
        read_bytes=read,
        flops=flops,
        seconds=round(seconds / shared, 1),
        bfloat16_saves=round(max(0.0, saved) / shared, 1),
    )


def plan_run(
    shape: Shape,
    texts: Flow,
    machine: Machine,
    *,
    sweep_streams: int,
    exact_streams: int,
    chunks: Mapping[str, int] = {},
    most_windows: int | None = None,
    stages: Collection[str] = PLANNED,
) -> MemoryPlan:
    """The plan of a run. sweep_streams, exact_streams: of these stages. chunks: windows a chunk by
    stage, where an earlier start decided. most_windows: the most that are wanted. stages: those
    that there are.

    InputError, with the amount needed, where the budget is too small."""
    planned = tuple(
        plan_stage(demand, shape, machine, chunks.get(demand.stage), most_windows)
        for demand in list_demands(shape, texts, sweep_streams, exact_streams)
        if demand.stage in stages
    )
    minimum = max(max(_least(stage, machine), stage.device_bytes) for stage in planned)
    if machine.budget < minimum:
        raise InputError(
            f"--max-memory {machine.budget // MIB}MiB is too little for this model: a block at "
            f"a time takes {-(-minimum // MIB)}MiB, {machine.held // MIB}MiB of it the libraries"
            + (f", with {machine.sharing} workers on a machine" if machine.sharing else ""),
            f"give --max-memory {-(-minimum // MIB)}MiB or more",
        )
    needed = max(stage.device_bytes for stage in planned)
    if machine.device_free is not None and machine.device_free < needed:
        raise InputError(
            f"a device has {machine.device_free // MIB}MiB free, and a block at a time takes "
            f"{-(-needed // MIB)}MiB",
            "free it, or choose another with --device",
        )
    seconds = sum(stage.seconds for stage in planned)
    return MemoryPlan(
        budget=machine.budget,
        held=machine.held,
        minimum=minimum,
        workers=machine.workers,
        sharing=machine.sharing,
        seconds=round(seconds, 1),
        stages=planned,
    )


def _least(stage: StagePlan, machine: Machine) -> int:
    """The smallest budget of the host that a stage could be carried out in."""
    one = machine.held + stage.least_bytes
    if stage.stage == PROOF:
        return one + machine.resting
    if stage.stage in SHARED and machine.sharing:
        # As `share_budget` shares it.
        return machine.sharing * one + (one if stage.stage == SEARCH else machine.held)
    return one
