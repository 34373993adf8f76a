"""Which files of a model directory hold its weights: those that transformers takes.

Its rules (5.23, `modeling_utils._get_resolved_checkpoint_files`) are repeated here, so that headers
can be looked at before any library opens a file; tests hold them against `from_pretrained`.
Besides, what a server saved of a model on one device is found, which transformers does not read.
What transformers would unpickle, or take only with another library installed, is refused.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.untrusted import list_files, read_json

SINGLE = "model.safetensors"
INDEX_SUFFIX = ".index.json"
INDEX = SINGLE + INDEX_SUFFIX
SAFETENSORS = ".safetensors"
# The entry of config.json that names the weights outright.
NAMED = "transformers_weights"
ADAPTER = "adapter_config.json"
SHARD = re.compile(r"(.+)-[0-9]{5}-of-[0-9]{5}\.safetensors")
# Each process of a distributed training saves such a file, and transformers looks for them first.
DISTRIBUTED = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors")
# What vLLM and SGLang save of a model as each of their devices holds it.
RANKED = re.compile(r"model-rank-([0-9]+)-part-([0-9]+)\.safetensors")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# transformers does not read what hqq saves by itself.
HQQ_PICKLE = "qmodel.pt"
# Files that hold weights, of this model or another.
HOLDING = (
    "*" + SAFETENSORS,
    "*" + SAFETENSORS + INDEX_SUFFIX,
    "pytorch_model*.bin",
    "pytorch_model*.bin" + INDEX_SUFFIX,
    "consolidated*.pth",
)
MOST_NAMED = 3


@dataclass(frozen=True)
class WeightFiles:
    """Which files of a directory hold its weights, by their names inside of it.

    names: all files in it and below. read: those that hold the weights, in order. aside: others
    beside them that hold weights, which are not read. indexes: name of the index that was followed,
    if any -> the files that it lists.
    """

    names: frozenset[str]
    read: tuple[str, ...]
    aside: tuple[str, ...]
    indexes: Mapping[str, frozenset[str]]


def find_weight_files(folder: Path) -> WeightFiles:
    """The files of a model directory that hold its weights. InputError, naming the files that are
    there, where transformers would load none of them."""
    names = {path.relative_to(folder).as_posix() for path in list_files(folder) if path.is_file()}
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError):
        # Readers that need more of config.json report what is wrong with it.
        config = {}
    named = config.get(NAMED) if isinstance(config, dict) else None
    return choose_weight_files(folder, names, named, lambda name: _read_index(folder / name))


def _read_index(path: Path) -> Any:
    try:
        return read_json(path)
    except PermissionError as error:
        raise not_permitted(path) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error})", "download it again") from error


def choose_weight_files(
    folder: Path, names: Collection[str], named: Any, read_index: Callable[[str], Any]
) -> WeightFiles:
    """Decide which of a directory's files, by their `names`, hold its weights.

    named: what config.json says of it, mostly nothing. read_index: gives the content of an index.
    InputError for a directory from which transformers loads nothing, or not always the same.
    """
    distributed = sorted(name for name in names if DISTRIBUTED.fullmatch(name))
    if distributed:
        raise InputError(
            f"{folder} holds shards of a distributed checkpoint ({list_some(distributed)})",
            "save it as one model first (transformers: from_pretrained, then save_pretrained)",
        )
    if ADAPTER in names:
        raise InputError(
            f"{folder} holds an adapter ({ADAPTER}), which transformers adds to the weights only "
            "where peft is installed",
            "merge it into them (peft: merge_and_unload, then save_pretrained), or move "
            f"{ADAPTER} elsewhere to take the weights without it",
        )
    ranked = _list_ranked(folder, names) if named is None else ()
    if ranked:
        return WeightFiles(frozenset(names), ranked, (), {})
    first = _find_first(folder, names, named)
    read: tuple[str, ...] = (first,)
    indexes: dict[str, frozenset[str]] = {}
    if first.endswith(INDEX_SUFFIX):
        content = read_index(first)
        read = _follow_index(folder, names, first, content)
        indexes[first] = _list_named(content)
    others = {name for name in names if "/" not in name} - {*read, *indexes}
    aside = sorted(n for n in others if any(fnmatchcase(n, pattern) for pattern in HOLDING))
    return WeightFiles(frozenset(names), read, tuple(aside), indexes)


def list_indexed(index: Path) -> frozenset[str]:
    """The files that an index lists. OSError, ValueError, AttributeError, LookupError or TypeError
    where it cannot be read or is damaged."""
    return _list_named(read_json(index))


def _list_named(content: Any) -> frozenset[str]:
    return frozenset(content["weight_map"].values())


def _find_first(folder: Path, names: Collection[str], named: Any) -> str:
    """The file that transformers opens first: the weights, or an index of their files."""
    if named is not None:
        remedy = f"take the entry {NAMED} out of config.json, or name a safetensors file in it"
        first = _plain_name(named)
        if first is None or not first.endswith((SAFETENSORS, SAFETENSORS + INDEX_SUFFIX)):
            raise InputError(
                f"the config.json of {folder} says that its weights are in {str(named)[:80]!r}",
                remedy,
            )
        if first not in names:
            raise InputError(f"{folder / first} is missing, which config.json names", remedy)
        return first
    for first in (SINGLE, INDEX):
        if first in names:
            return first
    raise _explain_none(folder, sorted(name for name in names if "/" not in name))


def _list_ranked(folder: Path, names: Collection[str]) -> tuple[str, ...]:
    """The parts of what a server saved of its only device, in order; none where other weights are
    there. InputError where each of several devices has a part of every weight."""
    found = {name: match for name in names if (match := RANKED.fullmatch(name))}
    if not found or SINGLE in names or INDEX in names:
        return ()
    if any(int(match[1]) for match in found.values()):
        raise InputError(
            f"{folder} holds a model that a server has split between devices "
            f"({list_some(sorted(found))})",
            "give the checkpoint that the server loaded, or have it save from one device",
        )
    return tuple(sorted(found, key=lambda name: int(found[name][2])))


def _explain_none(folder: Path, names: Iterable[str]) -> InputError:
    """The error for a directory that has no file by any name that transformers opens."""
    names = list(names)
    found = [name for name in names if name.endswith(SAFETENSORS)]
    pickled = [n for n in names if any(fnmatchcase(n, pattern) for pattern in PICKLED)]
    lacking = f"{folder} has neither {SINGLE} nor {INDEX}, which transformers looks for"
    if found and all(SHARD.fullmatch(name) for name in found):
        return InputError(
            f"{lacking}; there are the shards {list_some(found)}",
            f"download {INDEX} as well, which names them",
        )
    if found:
        which = "it holds" if len(found) == 1 else "one of them holds"
        return InputError(
            f"{lacking}; there is {list_some(found)}",
            f"if {which} the model's weights, name it {SINGLE}",
        )
    if pickled:
        remedy = "transformers: from_pretrained, then save_pretrained"
        if HQQ_PICKLE in pickled:
            remedy = (
                'hqq: AutoHQQHFModel.from_quantized(DIR, device="cpu"), then the model\'s '
                "save_pretrained"
            )
        return InputError(
            f"{folder} holds its weights as a pickle, which is never loaded ({list_some(pickled)})",
            f"convert it to safetensors first ({remedy})",
        )
    return InputError(
        f"{folder} holds no safetensors file",
        f"put {SINGLE} there, or the shards and {INDEX}; a model that is published as pickles "
        "only has to be converted first (transformers: from_pretrained, then save_pretrained)",
    )


def _follow_index(
    folder: Path, names: Collection[str], index: str, content: Any
) -> tuple[str, ...]:
    """The files that an index names, in transformers' order."""
    path = folder / index
    try:
        values = _list_named(content)
        named = sorted(value if isinstance(value, str) else repr(value) for value in values)
    except (AttributeError, LookupError, TypeError) as error:
        raise InputError(f"{path} is damaged (no weight_map)", "download it again") from error
    if not isinstance(content.get("metadata"), dict):
        raise InputError(
            f"{path} has no entry metadata, without which transformers does not read it",
            'add "metadata": {} to it',
        )
    if not named:
        raise InputError(f"{path} names no file", "download it again")
    read = []
    for value in named:
        name = _plain_name(value)
        if name is None:
            raise InputError(
                f"{path} names a file outside of its directory, or a hidden one ({value[:80]!r})",
                "download the checkpoint again, from a source that you trust",
            )
        if not name.endswith(SAFETENSORS):
            raise InputError(
                f"{path} names {value[:80]!r}, which is no safetensors file",
                "convert the model to safetensors first (transformers: from_pretrained, then "
                "save_pretrained)",
            )
        if name not in names:
            raise InputError(
                f"{folder / name} is missing, which {index} names", "download that file as well"
            )
        read.append(name)
    return tuple(read)


def _plain_name(value: Any) -> str | None:
    """The name of a file inside of the directory; None for what leads out of it or is hidden."""
    if not isinstance(value, str) or "\0" in value:
        return None
    path = PurePosixPath(value)
    if path.is_absolute() or not path.parts or any(part.startswith(".") for part in path.parts):
        return None
    return path.as_posix()


def list_some(names: Collection[str]) -> str:
    """The first of some names, and how many more there are."""
    listed, more = list(names)[:MOST_NAMED], len(names) - MOST_NAMED
    return ", ".join(listed) + (f" and {more} more" if more > 0 else "")


def write_aside(names: Collection[str]) -> str:
    """What is said of files that are left aside; empty where there are none."""
    return f"left aside, as transformers does: {list_some(names)}" if names else ""


def not_permitted(path: Path) -> InputError:
    """The error for a file that belongs to somebody else."""
    return InputError(f"{path} may not be read", "have its owner let you (chmod a+r)")
