"""Which files of a directory vLLM and SGLang read, and what follows where transformers reads
others.

Read from vLLM 0.32 (model_executor/model_loader/default_loader.py and weight_utils.py) and SGLang
0.5 (srt/model_loader/weight_utils.py): both read every safetensors file that no index leaves out.
"""

from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase

from awqscope.mixedprec.checkpoints.serving import REFUSES, SGLANG, VLLM, WRONG, Remark
from awqscope.mixedprec.models.weight_files import (
    INDEX,
    INDEX_SUFFIX,
    SAFETENSORS,
    SINGLE,
    list_some,
)

CONSOLIDATED = "consolidated" + SAFETENSORS
# The files that an index lists, or the tensors of a file, by its name.
ListNames = Callable[[str], Collection[str]]


def read_by_vllm(names: Collection[str], list_indexed: ListNames) -> frozenset[str] | str:
    """The files that vLLM reads, or why it refuses. names: of all files in the directory."""
    mistral = _matching(names, "consolidated*" + SAFETENSORS)
    found = mistral or _matching(names, "*" + SAFETENSORS)
    index = CONSOLIDATED + INDEX_SUFFIX if mistral else INDEX
    if not found:
        return "it looks for weights in the directory itself only"
    if index not in names:
        return found
    listed = frozenset(list_indexed(index))
    missing = listed - found
    return f"{index} names {min(missing)}, which it does not find" if missing else listed


def read_by_sglang(names: Collection[str], list_indexed: ListNames) -> frozenset[str] | str:
    """The files that SGLang reads, or why it refuses. names: of all files in the directory."""
    found = _matching(names, "*" + SAFETENSORS)
    if not found:
        return "it looks for weights in the directory itself only"
    if INDEX in names:
        return found & frozenset(list_indexed(INDEX))
    return frozenset({SINGLE}) if found == {CONSOLIDATED, SINGLE} else found


def _matching(names: Collection[str], pattern: str) -> frozenset[str]:
    return frozenset(n for n in names if "/" not in n and fnmatchcase(n, pattern))


READERS = {VLLM: read_by_vllm, SGLANG: read_by_sglang}


def check_files(
    read: Collection[str],
    names: Collection[str],
    list_indexed: ListNames,
    list_tensors: ListNames,
) -> Iterator[Remark]:
    """A remark for each server that reads other files than transformers, which reads `read`.

    names: of all files in the directory. list_indexed: gives the files that an index lists.
    list_tensors: gives the names of the tensors in a file.
    """
    for consumer, reader in READERS.items():
        try:
            taken = reader(names, list_indexed)
            if isinstance(taken, str):
                yield Remark(consumer, REFUSES, taken)
            elif taken != {*read}:
                yield Remark(consumer, *_compare({*read}, taken, list_tensors))
        except (AttributeError, LookupError, TypeError, ValueError, OSError) as error:
            yield Remark(consumer, REFUSES, f"what it reads is damaged ({error})")


def _compare(
    read: Collection[str], taken: Collection[str], list_tensors: ListNames
) -> tuple[str, str]:
    """Effect and reason where a server reads the files `taken` and transformers reads `read`."""
    more, less = sorted({*taken} - {*read}), sorted({*read} - {*taken})
    known, found = (
        {name for file in files for name in list_tensors(file)} for files in (read, taken)
    )
    if not more:
        what = f"it does not read {list_some(less)}"
    else:
        instead = f"instead of {list_some(less)}" if less else "as well"
        what = f"it reads {list_some(more)} {instead}"
    return (WRONG if known == found else REFUSES), what
