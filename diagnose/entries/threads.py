"""With how many threads a run computes."""

from pydantic import Field

from awqscope.diagnose.entries.part import Part


class Threads(Part):
    """How many threads compute, decided when a run is begun: float32 sums depend on it in their
    last bits, so that a run that goes on keeps to it."""

    each: int = Field(description="Of each process that measures.")
    alone: int = Field(description="Of the process that writes the checkpoint, and the proof's.")
    reason: str = Field(description="Why so many, in words.")
