"""What a comparison is asked: everything that decides its numbers, checked before it starts."""

from dataclasses import asdict, dataclass
from typing import Any

from awqscope.diagnose.runs.spec import GIB, Texts, check_texts, list_texts, read_texts, write_texts
from awqscope.diagnose.statistics.spikes import Thresholds
from awqscope.mixedprec.errors import InputError


@dataclass(frozen=True)
class CompareSpec:
    """The options of `awqscope compare`; see its --help. valid: a text, or several. seq_len and
    windows: None for the defaults. max_memory: bytes. chunk_windows: the most windows that are
    measured at a time; None for as many as memory takes. trust_remote_code: whether Python that
    comes with the reference is run. InputError for numbers that make no sense, and for no text or
    the same one twice."""

    reference: str
    candidate: str
    valid: Texts
    seq_len: int | None = None
    windows: int | None = None
    z: float = Thresholds.z
    ratio: float = Thresholds.ratio
    delta_ppl: float | None = None
    top_k: int | None = None
    seed: int = 0
    max_memory: int = 8 * GIB
    chunk_windows: int | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        check_texts(self.valid_texts)
        least = {"--seq-len": (self.seq_len, 2), "--windows": (self.windows, 2)}
        least |= {"--top-k": (self.top_k, 0), "--seed": (self.seed, 0)}
        least |= {"--chunk-windows": (self.chunk_windows, 1)}
        for option, (value, smallest) in least.items():
            if value is not None and value < smallest:
                raise InputError(f"{option} {value} is too small", f"give at least {smallest}")

    @property
    def valid_texts(self) -> tuple[str, ...]:
        """The texts that are measured on, one after another."""
        return list_texts(self.valid)

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(self.z, self.ratio, self.delta_ppl, self.top_k)

    def to_json(self) -> dict[str, Any]:
        """As stored in run.json; one text to measure on is a string there."""
        return {**asdict(self), "valid": write_texts(self.valid_texts)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> "CompareSpec":
        """What `to_json` gave."""
        try:
            return CompareSpec(**{**data, "valid": read_texts(data["valid"])})
        except (TypeError, KeyError) as error:
            raise InputError(
                f"the run was made by another version ({error})", "use the version that made it"
            ) from error
