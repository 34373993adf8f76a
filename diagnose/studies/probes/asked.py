"""What is asked of a probe: of which blocks, on which windows, with which further texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from awqscope.diagnose.inputs.corpora import load_corpus
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.studies.probes.answer import BlockProbe
from awqscope.diagnose.studies.study import Study, check_block, name_study
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.ranking import as_cost

KIND = "probe"
# An interval needs more than one window.
FEWEST_WINDOWS = 2
# Which alternatives there are, by number: where they were others an answer is measured again.
ALTERNATIVES = 2


@dataclass(frozen=True)
class Asked:
    """What a probe's answer depends on besides the run and the block. windows: of the run's text to
    measure on, None for as many as are done in a minute or two. also: SPECs of further texts to
    calibrate on -> the SHA-256 of each."""

    windows: int | None
    also: Mapping[str, str]

    def study(self, run: RunDirectory, block: int) -> Study:
        """The study that answers it for a block."""
        asked = {
            "block": block,
            "windows": self.windows,
            "calib_also": dict(self.also),
            "alternatives": ALTERNATIVES,
        }
        return Study(run, name_study(KIND, block), asked)


def ask(run: RunDirectory, windows: int | None = None, calib_also: Sequence[str] = ()) -> Asked:
    """What is asked of a run, checked. InputError for a number of windows that its text does not
    have or that gives no interval, and for texts that cannot be read."""
    there = run.read_measured().ppl_definition.windows
    if windows is not None and not FEWEST_WINDOWS <= windows <= there:
        raise InputError(
            f"{run.path} was not measured on {windows} windows",
            f"give {FEWEST_WINDOWS} to {there} of them",
        )
    return Asked(windows, {text: load_corpus(text).hash for text in calib_also})


def choose_blocks(run: RunDirectory, blocks: Sequence[int] = ()) -> tuple[int, ...]:
    """The blocks that a probe is of: those that are asked for, else the flagged ones, else the one
    that costs most alone. InputError for a block that the model does not have, and for one of
    which the run quantizes nothing."""
    record = run.read_measured()
    for block in blocks:
        check_block(record, block)
    if blocks or record.measured.flagged:
        return tuple(dict.fromkeys(blocks or record.measured.flagged))
    alone = [row for row in run.read_table("blocks").to_pylist() if row["view"] == "isolated"]
    return (max(alone, key=lambda row: as_cost(row["kl"]))["block"],)


def read_probe(run: RunDirectory, block: int, asked: Asked) -> BlockProbe | None:
    """The answer to just this question, where it is kept."""
    kept = asked.study(run, block).read()
    if kept is None:
        return None
    try:
        return BlockProbe.model_validate(kept)
    except ValueError:
        # Another version's: it is measured again.
        return None
