"""The options that runs and comparisons share: what is measured, and what is flagged."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationInfo

from awqscope.diagnose.options.amounts import read_bytes
from awqscope.diagnose.options.option import (
    BYTES,
    FLAGGING,
    MACHINE,
    MOST,
    RESULT,
    TEXTS,
    Options,
    OptionsError,
    Shown,
    check_with,
    list_options,
    refuse,
)
from awqscope.diagnose.statistics.spikes import Thresholds
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.models.dtypes import AUTO, FLOAT32, PRECISIONS, check_precision
from awqscope.mixedprec.words import GIB

DEFAULT_SEQ_LEN = 2048
# What every generator of random numbers takes, and every file.
MOST_SEED = 2**63 - 1


def check_texts(texts: tuple[str, ...]) -> None:
    """Raise InputError for no text or the same one twice."""
    twice = [text for text in texts if texts.count(text) > 1]
    if twice or not texts:
        raise InputError(
            f"--valid {twice[0]} is given twice" if twice else "there is no text to measure on",
            "give each text once",
        )


def read_texts(given: Any) -> Any:
    """Several texts as a tuple; one may be given alone, and is stored so."""
    if isinstance(given, str):
        return (given,)
    return tuple(given) if isinstance(given, list) else given


def write_texts(texts: tuple[str, ...]) -> str | list[str]:
    """Texts as run.json has them: one is a string there."""
    return texts[0] if len(texts) == 1 else list(texts)


Texts = Annotated[tuple[str, ...], BeforeValidator(read_texts)]


FAST, EXACT = "fast", "exact"
WAYS = (FAST, EXACT)


def check_sweep(how: str) -> None:
    """Raise InputError for a way to sweep that there is none of."""
    if how not in WAYS:
        raise InputError(f"--sweep {how} is not known", f"give {' or '.join(WAYS)}")


def check_most(most: int | None, how: str) -> None:
    """Raise InputError for a bound on the windows of a sweep that takes all."""
    if most is not None and how == EXACT:
        raise InputError(
            f"--sweep-windows {most} is none of --sweep exact, which takes every window",
            "give one of them",
        )


def _check_most(most: int | None, info: ValidationInfo) -> int | None:
    check_with(partial(check_most, how=info.data.get("sweep", FAST)))(most)
    return most


class Spec(Options):
    """The options that runs and comparisons share. COMMAND: what starts one. NAMED_AFTER: the
    option with the model that it is named after. BEFORE: what held in versions that lacked an
    option, where that is not its default."""

    COMMAND: ClassVar[str]
    NAMED_AFTER: ClassVar[str]
    BEFORE: ClassVar[Mapping[str, Any]] = {"sweep": EXACT, "precision": FLOAT32}

    valid: Annotated[
        Texts,
        AfterValidator(check_with(check_texts)),
        PlainSerializer(write_texts),
        Field(description="Text to measure on; repeatable, each is a slice."),
        Shown(
            label="Validation texts",
            hint="What perplexity and KL are measured on; one a line, each is told apart.",
            metavar="SPEC",
            group=TEXTS,
        ),
    ] = ("wikitext2:test",)
    seq_len: Annotated[
        int | None,
        Field(ge=2, le=MOST, description="Window of the PPL."),
        Shown(
            label="Tokens in a window",
            hint="Left empty: 2048, or the model's maximum.",
            metavar="N",
            group=TEXTS,
            unset=f"{DEFAULT_SEQ_LEN} or the model's maximum",
            unit="tokens",
        ),
    ] = None
    windows: Annotated[
        int | None,
        Field(ge=2, le=MOST, description="Windows to measure, spread over the text."),
        Shown(
            label="Windows",
            hint="Spread over each validation text. Left empty: all of it.",
            metavar="N",
            group=TEXTS,
            unset="all",
            unit="windows",
        ),
    ] = None
    sweep: Annotated[
        str,
        AfterValidator(check_with(check_sweep)),
        Field(
            description="How blocks are measured: fast, on as many windows as make every flag "
            "sure, or exact, on every window."
        ),
        Shown(
            label="Sweep",
            hint="fast, or exact: every block on every window.",
            metavar="HOW",
            group=TEXTS,
            choices=WAYS,
        ),
    ] = FAST
    sweep_windows: Annotated[
        int | None,
        Field(ge=2, le=MOST, description="Windows that blocks are measured on, at most."),
        AfterValidator(_check_most),
        Shown(
            label="Windows of the sweep",
            hint="That blocks are measured on, at most. Left empty: all that flags take.",
            metavar="N",
            group=TEXTS,
            unset="as many as make every flag sure",
            unit="windows",
        ),
    ] = None
    z: Annotated[
        float,
        Field(description="Robust z-score from which a block is flagged."),
        Shown(
            label="Robust z-score",
            hint="A block is flagged from this on, by log KL …",
            metavar="X",
            group=FLAGGING,
            unit="standard deviations",
        ),
    ] = Thresholds.z
    ratio: Annotated[
        float,
        Field(description="... if its KL also is so many times the other blocks' median."),
        Shown(
            label="Times the median",
            hint="… if it also is so many times the other blocks' KL.",
            metavar="X",
            group=FLAGGING,
            unit="times",
        ),
    ] = Thresholds.ratio
    delta_ppl: Annotated[
        float | None,
        Field(description="Flag any block whose ΔPPL alone is above this."),
        Shown(
            label="ΔPPL above",
            hint="Flags any block whose ΔPPL alone is above this.",
            metavar="X",
            group=FLAGGING,
            unit="perplexity",
        ),
    ] = Thresholds.delta_ppl
    top_k: Annotated[
        int | None,
        Field(ge=0, le=MOST, description="Flag the k worst blocks instead of outliers."),
        Shown(
            label="Worst blocks",
            hint="Flags so many, instead of asking which stand out.",
            metavar="K",
            group=FLAGGING,
            unit="blocks",
        ),
    ] = Thresholds.top_k
    seed: Annotated[
        int,
        Field(ge=0, le=MOST_SEED, description="Seed of the bootstrap and of sampled tokens."),
        Shown(
            label="Seed", hint="Of the bootstrap and of sampled tokens.", metavar="N", group=RESULT
        ),
    ] = 0
    max_memory: Annotated[
        int,
        BeforeValidator(refuse(read_bytes)),
        Field(
            description="What a run may hold, of the host and of a device; streams that do not fit "
            "go to files in the run directory. Workers share it."
        ),
        Shown(label="Memory", metavar="SIZE", group=MACHINE, unit=BYTES, is_binding=False),
    ] = 8 * GIB
    chunk_windows: Annotated[
        int | None,
        Field(
            ge=1,
            le=MOST,
            description="Windows measured at a time, at most: a killed run loses what it has of "
            "them.",
        ),
        Shown(
            label="Windows at a time",
            metavar="N",
            group=MACHINE,
            unset="as many as memory takes",
            unit="windows",
            is_binding=False,
        ),
    ] = None
    precision: Annotated[
        str,
        AfterValidator(check_with(check_precision)),
        Field(
            description="What blocks compute their products in while they are measured: float32, "
            "tf32 (CUDA) or bfloat16. auto is tf32 on CUDA and float32 on the CPU."
        ),
        Shown(
            label="Precision",
            hint="Of products in blocks; auto is tf32 on CUDA and float32 on the CPU.",
            metavar="TYPE",
            group=MACHINE,
            choices=(AUTO, *PRECISIONS),
        ),
    ] = AUTO
    trust_remote_code: Annotated[
        bool,
        Field(
            description="Run Python that comes with the model, with all that you may do yourself."
        ),
        Shown(group=MACHINE, flags=("--trust-remote-code",)),
    ] = False

    @property
    def is_sampled(self) -> bool:
        """Whether blocks are measured on no more windows than make every flag sure."""
        return self.sweep == FAST

    @property
    def thresholds(self) -> Thresholds:
        """When a block is flagged."""
        return Thresholds(self.z, self.ratio, self.delta_ppl, self.top_k)

    def list_binding(self) -> dict[str, Any]:
        """The options that decide what a run finds, as run.json has them."""
        options = list_options(type(self))
        return {
            name: value for name, value in self.to_json().items() if options[name].shown.is_binding
        }

    def to_json(self) -> dict[str, Any]:
        """The spec as stored in run.json."""
        stored = self.model_dump(mode="json")
        return {name: stored[name] for name in list_options(type(self))}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave. InputError for what another version stored."""
        try:
            return cls.model_validate({**cls.BEFORE, **data}, strict=True)
        except (OptionsError, TypeError, ValueError) as error:
            why = error.what if isinstance(error, OptionsError) else error
            raise InputError(
                f"the run was made by another version ({why})", "use the version that made it"
            ) from error
