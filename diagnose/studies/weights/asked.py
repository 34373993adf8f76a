"""Which linears of a block somebody asks for."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from awqscope.diagnose.runs.record import Record
from awqscope.diagnose.studies.study import check_number
from awqscope.diagnose.studies.weights.answer import BlockWeights
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.words import join_words

UNIT = re.compile(r"([0-9]{1,6})(?:\.([\w-]+))?")


@dataclass(frozen=True)
class Asked:
    """A unit of a block, by its kind; None for all of the block's."""

    block: int
    kind: str | None


def read_asked(text: str) -> Asked:
    """`5.qkv`, or `5` for the whole block. InputError for anything else."""
    found = UNIT.fullmatch(text.strip())
    if found is None:
        raise InputError(f"{text!r} is no unit", "give a unit like 5.qkv, or a block like 5")
    return Asked(int(found[1]), found[2])


def check_asked(record: Record, asked: Asked) -> None:
    """Raise InputError, before the model is opened, for a block or unit that it does not have."""
    check_number(record, asked.block)
    kinds = record.source.units
    if asked.kind is not None and asked.kind not in kinds:
        raise _refuse_unit(asked, kinds)


def _refuse_unit(asked: Asked, kinds: Iterable[str]) -> InputError:
    units = join_words([f"{asked.block}.{kind}" for kind in kinds])
    return InputError(
        f"there is no unit {asked.block}.{asked.kind}", f"block {asked.block} has {units}"
    )


def choose_linears(answer: BlockWeights, asked: Asked, linear: str | None = None) -> BlockWeights:
    """The answer with the linears that were asked for alone. linear: a name, or the end of one from
    a dot on. InputError where there is none of that name."""
    units = dict.fromkeys(one.unit for one in answer.linears)
    if asked.kind is not None and asked.kind not in units:
        raise _refuse_unit(asked, units)
    found = [one for one in answer.linears if asked.kind in (None, one.unit)]
    if linear is not None:
        names = [one.linear for one in found]
        found = [one for one in found if f".{one.linear}".endswith(f".{linear}")]
        if not found:
            raise InputError(f"there is no linear {linear!r} here", f"choose {names[0]}, …")
    brief = [name for name in answer.brief if name in {one.linear for one in found}]
    return answer.changed(linears=found, brief=brief)
