"""What can be asked of a run's calibration, checked before anything is searched."""

from dataclasses import asdict, dataclass
from typing import Any

from awqscope.diagnose.options.option import MOST
from awqscope.diagnose.options.shared import WAYS
from awqscope.mixedprec.errors import InputError

# The AWQ paper's 128 windows, and fewer by halves.
COUNTS = (8, 16, 32, 64, 128)
DRAWS = 2
MOST_DRAWS = 16


@dataclass(frozen=True)
class Asked:
    """What is asked of a run's calibration.

    counts: of windows, for the curve. draws: how many other sets of windows of the same text are
    searched. calib_also, valid_also: SPECs of texts beside the run's own. search: `fast` or
    `exact`, None for the run's own. windows: the most validation windows to measure on, None for
    as many of the run's as have MOST_TOKENS. Errors: InputError for what makes no sense."""

    counts: tuple[int, ...] = COUNTS
    draws: int = DRAWS
    calib_also: tuple[str, ...] = ()
    valid_also: tuple[str, ...] = ()
    search: str | None = None
    windows: int | None = None

    def __post_init__(self) -> None:
        for count in self.counts:
            if not 1 <= count <= MOST:
                raise InputError(f"--counts {count} is no number of windows", "give at least 1")
        if not 0 <= self.draws <= MOST_DRAWS:
            raise InputError(
                f"--draws {self.draws} is out of range", f"give 0 to {MOST_DRAWS} of them"
            )
        if self.search not in (None, *WAYS):
            raise InputError(f"--search {self.search} is not known", f"give {' or '.join(WAYS)}")
        if self.windows is not None and not 2 <= self.windows <= MOST:
            raise InputError(f"--windows {self.windows} is too small", "give at least 2")
        for name, texts in (("calib", self.calib_also), ("valid", self.valid_also)):
            twice = next((text for text in texts if texts.count(text) > 1), None)
            if twice is not None:
                raise InputError(f"--{name}-also {twice} is given twice", "give each text once")

    def to_json(self) -> dict[str, Any]:
        """In the types of JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }


# What is asked where nothing else is said.
USUAL = Asked()


def parse_counts(text: str) -> tuple[int, ...]:
    """Counts as they are typed, `8,16,32`, in order and each once. InputError for anything else."""
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise InputError(f"{text!r} is no list of counts", "give it like 8,16,32") from error
