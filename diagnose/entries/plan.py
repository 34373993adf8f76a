"""What a run was expected to take before it began."""

from collections.abc import Sequence

from pydantic import Field

from awqscope.diagnose.entries.part import Part


class StagePlan(Part):
    """How a stage is to be carried out; an estimate that errs to the safe side."""

    stage: str = Field(description="Its name. `exact` is planned as if one block were flagged.")
    windows: int = Field(description="Windows of text that it takes.")
    beside: int = Field(
        default=0,
        description="Windows besides, that only the reference and the uniform model go through.",
    )
    beside_seconds: float = Field(default=0.0, description="How long these take, of `seconds`.")
    chunk_windows: int = Field(description="Windows that are worked on at a time.")
    chunks: int = Field(description="How many times that is.")
    passes: int = Field(description="How often all weights are read.")
    streams: int = Field(description="Streams alive at its end.")
    stream_bytes: int = Field(description="Of all streams of a chunk.")
    spilled_bytes: int = Field(description="Of those that do not fit, and are kept in files.")
    fixed_bytes: int = Field(description="What a process holds besides streams.")
    least_bytes: int = Field(description="What it holds besides streams with the smallest budget.")
    peak_bytes: int = Field(description="What a process holds at most, everything counted.")
    device_bytes: int = Field(description="Of a device's memory; 0 without one.")
    read_bytes: int = Field(description="Of weights that are read, in all.")
    flops: float = Field(description="Floating-point operations.")
    seconds: float = Field(description="How long it takes.")
    bfloat16_saves: float = Field(
        default=0.0,
        description="How many of `seconds` products in bfloat16 would save, where the run's are in "
        "float32 and the processor has units for bfloat16.",
    )

    def with_windows(self, windows: int) -> float:
        """About how many seconds it would take with fewer windows of text."""
        most = self.seconds - self.beside_seconds
        taken = most * min(1.0, windows / self.windows) if self.windows else most
        left = max(0, windows - self.windows)
        return taken + (self.beside_seconds * left / self.beside if self.beside else 0.0)


class MemoryPlan(Part):
    """What a run will take, worked out at every start."""

    budget: int = Field(description="Bytes that may be had of each kind of memory.")
    held: int = Field(description="Bytes that a process held before it began.")
    minimum: int = Field(description="The smallest budget that would do, in bytes.")
    workers: int = Field(description="Processes that share the work.")
    sharing: int = Field(
        description="The most of them on one machine, beside the process that hands out; 0 where "
        "that one works itself."
    )
    seconds: float = Field(description="How long all stages take.")
    stages: Sequence[StagePlan] = Field(description="The stages that there are, in order.")

    def with_windows(self, windows: int) -> float:
        """About how many seconds it would take with fewer windows of text to measure: the search
        alone does not read them."""
        return sum(
            stage.seconds if stage.stage == "search" else stage.with_windows(windows)
            for stage in self.stages
        )

    @property
    def in_bfloat16(self) -> float:
        """About how many seconds it would take with products of blocks in bfloat16."""
        return self.seconds - sum(stage.bfloat16_saves for stage in self.stages)

    def stage(self, name: str) -> StagePlan:
        """The plan of one stage. LookupError where there is none."""
        for stage in self.stages:
            if stage.stage == name:
                return stage
        raise LookupError(f"no stage {name} was planned")
