"""A catalogue of a model's files: which tensors they hold, of which type and shape, and where.

It is made once, when a directory is opened, from the headers of its files by the strict reader
(`mixedprec/files/header.py`); whoever wants to know something of a stored tensor asks it, and
values are read by what it says (`weights.py`). No file's header is looked at twice.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.experts import Part, find_part
from awqscope.mixedprec.families.family import Family
from awqscope.mixedprec.files.header import Header, read_header
from awqscope.mixedprec.models.weight_files import find_weight_files, list_indexed, not_permitted

T = TypeVar("T")
# Names that older checkpoints give a module of today's transformers.
OLD_NAMES = {"lm_head.weight": "embed_out.weight"}
HEADS = ("lm_head.weight", "embed_out.weight")


@dataclass(frozen=True, slots=True)
class Stored:
    """What a catalogue says of a tensor.

    path: the file that holds it. dtype: safetensors' name of its type. shape: as stored. begin: the
    byte of the file at which its values begin. size: how many bytes they take.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int

    def cut(self, part: Part) -> "Stored":
        """The stored place of an expert's linear, which is a run of rows of this stacked tensor.
        ValueError unless it has three dimensions."""
        rows = part.rows(self.shape)
        row = self.size // (self.shape[0] * self.shape[1])
        shape = (len(rows), self.shape[2])
        return replace(self, shape=shape, begin=self.begin + row * rows.start, size=row * len(rows))


@dataclass(frozen=True)
class Catalogue:
    """What the files of a model's directory hold.

    folder: the directory. names: of all files in it and below. read: those that hold the weights,
    in transformers' order. aside: others beside them that hold weights, which are not read.
    tensors: stored name -> what is known of it. stamps: time and size of every file that was read.
    indexes: name of every index that was read -> the files that it lists.
    """

    folder: Path
    names: frozenset[str]
    read: tuple[str, ...]
    aside: tuple[str, ...]
    tensors: Mapping[str, Stored]
    stamps: Mapping[Path, tuple[int, int]] = field(repr=False)
    indexes: Mapping[str, frozenset[str]] = field(repr=False)

    @property
    def bytes(self) -> int:
        """Bytes of all tensors; the files' headers, which no server keeps, left out."""
        return sum(tensor.size for tensor in self.tensors.values())

    def list_indexed(self, index: str) -> frozenset[str]:
        """The files that an index lists, looked up where it has been read. OSError, ValueError,
        AttributeError, LookupError or TypeError for one that has not and cannot be."""
        return self.indexes[index] if index in self.indexes else list_indexed(self.folder / index)

    def list_tensors(self, name: str) -> frozenset[str]:
        """Names of the tensors in a file, looked up where it is one of those that are read. OSError
        or ValueError for another that cannot be."""
        if name not in self.read:
            return frozenset(read_header(self.folder / name).tensors)
        path = self.folder / name
        return frozenset(held for held, tensor in self.tensors.items() if tensor.path == path)


def open_catalogue(folder: Path) -> Catalogue:
    """Catalogue a model's directory. InputError where transformers would load none of the files
    there, for a file that is damaged, and for a tensor that is in two of them: transformers takes
    the last, whatever an index says."""
    chosen = find_weight_files(folder)
    tensors: dict[str, Stored] = {}
    stamps: dict[Path, tuple[int, int]] = {}
    for name in chosen.read:
        path = folder / name
        stamp = stamp_file(path)
        header = _read_header(path)
        if stamp is not None:
            stamps[path] = stamp
        for held, tensor in header.tensors.items():
            if held in tensors:
                raise InputError(
                    f"the tensor {held} is both in {tensors[held].path.name} and in {path.name} of "
                    f"{folder}",
                    "remove the file that is of another model, or save the model again "
                    "(transformers: from_pretrained, then save_pretrained)",
                )
            begin = header.length + tensor.begin
            tensors[held] = Stored(path, tensor.dtype, tensor.shape, begin, tensor.size)
    return Catalogue(
        folder, chosen.names, chosen.read, chosen.aside, tensors, stamps, chosen.indexes
    )


def _read_header(path: Path) -> Header:
    """The header of a weights file, or why it cannot be had in words for a user."""
    try:
        return read_header(path)
    except PermissionError as error:
        raise not_permitted(path) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is truncated or damaged ({error})", "download it again"
        ) from error


def stamp_file(path: Path) -> tuple[int, int] | None:
    """Time of the last change and size of a file; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def name_fully(tensors: Mapping[str, T], family: Family, tied: bool) -> dict[str, T]:
    """The tensors by the names of transformers' whole model. tensors: by stored name.

    Some checkpoints, BLOOM's and old OPTs among them, hold its body alone, without the first part
    of each name. A model whose head is its embedding (`tied`) may store it as the head only.
    """
    full = dict(tensors)
    embedding = f"{family.embedding}.weight"
    body, _, blocks = family.blocks.partition(".")
    if any(name.startswith(f"{blocks}.") for name in full):
        known = ("lm_head.", body + ".")
        full = {n if n.startswith(known) else f"{body}.{n}": held for n, held in full.items()}
    head = next((name for name in HEADS if name in full), None)
    if tied and embedding not in full and head is not None:
        full = {embedding if name == head else name: held for name, held in full.items()}
    return full


def stored_name(name: str, tensors: Mapping[str, object]) -> str:
    """What a parameter is called in this checkpoint."""
    old = OLD_NAMES.get(name, name)
    return old if name not in tensors and old in tensors else name


def find_holder(name: str, family: Family, tensors: Container[str]) -> str:
    """The stored tensor that holds what is called `name` in a checkpoint: of that name, or one that
    stacks the experts' linears."""
    part = find_part(name, family.experts, tensors)
    return part.tensor if part else name


def find_stored(name: str, family: Family, tensors: Mapping[str, Stored]) -> Stored:
    """Where a checkpoint holds what is called `name` there, by itself or inside a stacked tensor.
    KeyError where it does not; ValueError for a stacked tensor that has not three dimensions."""
    part = find_part(name, family.experts, tensors)
    return tensors[part.tensor].cut(part) if part else tensors[name]
