"""Where and how a stage is carried out."""

from dataclasses import dataclass

from awqscope.diagnose.entries.plan import MemoryPlan
from awqscope.diagnose.machine.tasks import Workers
from awqscope.diagnose.plan.room import Room, room_for
from awqscope.diagnose.runs.directory import OnProgress, RunDirectory
from awqscope.mixedprec.models.dtypes import choose_precision


@dataclass(frozen=True)
class Setting:
    """What every stage of a run is given besides its spec and inputs."""

    # The directory that it reads from and leaves its results in.
    run: RunDirectory
    # Who carries out its tasks.
    workers: Workers
    # What it may take, as planned at this start.
    plan: MemoryPlan
    # Told (stage, steps done, steps in all).
    progress: OnProgress

    @property
    def precision(self) -> str:
        """What blocks compute in while they are measured."""
        return choose_precision(self.run.read().spec.precision, self.workers.kind)

    def room_for(self, stage: str) -> Room:
        """The memory for the streams of a stage's tasks."""
        return room_for(self.plan, stage, self.run.path)
