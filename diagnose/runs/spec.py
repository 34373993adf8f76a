"""What a run is asked to do: everything that decides its numbers, checked before it starts."""

from dataclasses import asdict, dataclass
from typing import Any

from awqscope.diagnose.statistics.spikes import Thresholds
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.dtypes import AUTO, check_dtype
from awqscope.mixedprec.scheme import SERVED_WIDTHS, Scheme

# What a user gets who says nothing of it; other defaults are RunSpec's own.
CALIB, VALID = "wikitext2:train", "wikitext2:test"
DEFAULT_SEQ_LEN = 2048
MAX_MEMORY = "8GiB"
GIB = 2**30


# A text to measure on, or several.
Texts = str | tuple[str, ...]


def list_texts(valid: Texts) -> tuple[str, ...]:
    """The texts that are measured on, one after another."""
    return (valid,) if isinstance(valid, str) else valid


def check_texts(texts: tuple[str, ...]) -> None:
    """Raise InputError for no text or the same one twice."""
    twice = [text for text in texts if texts.count(text) > 1]
    if twice or not texts:
        raise InputError(
            f"--valid {twice[0]} is given twice" if twice else "there is no text to measure on",
            "give each text once",
        )


def write_texts(texts: tuple[str, ...]) -> str | list[str]:
    """`valid` as stored in run.json: one text is a string there."""
    return texts[0] if len(texts) == 1 else list(texts)


def read_texts(valid: str | list[str]) -> Texts:
    """What `write_texts` gave."""
    return valid if isinstance(valid, str) else tuple(valid)


@dataclass(frozen=True)
class RunSpec:
    """The options of `awqscope run`; see its --help. valid: a text, or several to measure on and to
    tell apart. seq_len and windows: None for the defaults. max_memory: bytes. chunk_windows: the
    most windows that are measured at a time; None for as many as memory takes. trust_remote_code:
    whether Python that comes with the model is run. dtype: the type to serve in, `auto` for the one
    that the model comes in. Errors: InputError for widths that make no sense, for no text or the
    same one twice, and for a type that nothing is served in."""

    model: str
    calib: str
    valid: Texts
    bits: int = 4
    rescue_bits: int = 8
    group_size: int = 128
    symmetric: bool = False
    seq_len: int | None = None
    windows: int | None = None
    calib_windows: int = 128
    calib_seq_len: int = 512
    z: float = Thresholds.z
    ratio: float = Thresholds.ratio
    delta_ppl: float | None = None
    top_k: int | None = None
    whole_blocks: bool = False
    keep_fp16: tuple[str, ...] = ()
    verify_units: int = 12
    seed: int = 0
    max_memory: int = 8 * GIB
    chunk_windows: int | None = None
    trust_remote_code: bool = False
    dtype: str = AUTO

    def __post_init__(self) -> None:
        if self.low.bits >= self.rescue.bits:
            raise InputError(
                f"--rescue-bits {self.rescue_bits} is not above --bits {self.bits}",
                "rescue at more bits than the rest gets",
            )
        check_texts(self.valid_texts)
        check_dtype(self.dtype)
        positive = {
            "--seq-len": (self.seq_len, 2),
            "--windows": (self.windows, 2),
            "--calib-windows": (self.calib_windows, 1),
            "--calib-seq-len": (self.calib_seq_len, 1),
            "--top-k": (self.top_k, 0),
            "--verify-units": (self.verify_units, 0),
            "--seed": (self.seed, 0),
            "--chunk-windows": (self.chunk_windows, 1),
        }
        for option, (value, least) in positive.items():
            if value is not None and value < least:
                raise InputError(f"{option} {value} is too small", f"give at least {least}")

    @property
    def valid_texts(self) -> tuple[str, ...]:
        """The texts that are measured on, one after another."""
        return list_texts(self.valid)

    @property
    def low(self) -> Scheme:
        """The scheme of every unit that is not promoted."""
        return Scheme(self.bits, self.group_size, self.symmetric)

    @property
    def rescue(self) -> Scheme:
        """The scheme of promoted units: symmetric, the form that every server has a kernel for."""
        return Scheme(self.rescue_bits, self.group_size, True)

    @property
    def schemes(self) -> dict[int, Scheme]:
        """bits -> scheme."""
        return {scheme.bits: scheme for scheme in (self.low, self.rescue)}

    @property
    def no_checkpoint(self) -> str | None:
        """Why the run ends without a checkpoint, if it does."""
        odd = set(self.schemes).difference(SERVED_WIDTHS)
        return f"no server loads checkpoints with {min(odd)}-bit layers" if odd else None

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(self.z, self.ratio, self.delta_ppl, self.top_k)

    def to_json(self) -> dict[str, Any]:
        """As stored in run.json; one text to measure on is a string there."""
        valid = write_texts(self.valid_texts)
        return {**asdict(self), "valid": valid, "keep_fp16": list(self.keep_fp16)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> "RunSpec":
        """What `to_json` gave."""
        try:
            valid = read_texts(data["valid"])
            return RunSpec(**{**data, "valid": valid, "keep_fp16": tuple(data["keep_fp16"])})
        except (TypeError, KeyError) as error:
            raise InputError(
                f"the run was made by another version ({error})", "use the version that made it"
            ) from error
