"""The 16-bit type that a model is served in: which it is, what its range holds, and the model's
embeddings and head as they are stored in it."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awqscope.mixedprec.families.experts import find_part
from awqscope.mixedprec.families.family import Family
from awqscope.mixedprec.files.header import StoredTensor, read_header
from awqscope.mixedprec.models.dtypes import AUTO
from awqscope.mixedprec.models.ends import Entrance, Head
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.weights import (
    held_name,
    is_finite,
    read_parts,
    report_unreadable,
    stored_name,
    too_large,
)

DTYPES: Mapping[str, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}
# The same types by safetensors' names.
STORED: Mapping[str, torch.dtype] = {"F16": torch.float16, "BF16": torch.bfloat16}


def name_dtype(dtype: torch.dtype) -> str:
    """ "float16" or "bfloat16", as config.json and servers call them."""
    return str(dtype).removeprefix("torch.")


def read_dtype(config: Any) -> torch.dtype | None:
    """The 16-bit type that a configuration names, itself or in its text model's; None for another
    type or none."""
    for said in (getattr(each, "dtype", None) for each in (config, config.get_text_config())):
        if isinstance(said, torch.dtype) and said in DTYPES.values():
            return said
    return None


def choose_dtype(
    asked: str, said: torch.dtype | None, family: Family, shell: Any, files: Mapping[str, Path]
) -> torch.dtype:
    """The type to serve in: what is asked, else what config.json `said`, else the one that most
    parameters of the blocks' linears are stored in; float16 where that is no 16-bit type."""
    if asked != AUTO:
        return DTYPES[asked]
    if said is not None:
        return said
    headers: dict[Path, Mapping[str, StoredTensor]] = {}
    stored: Counter[str] = Counter()
    for number, block in enumerate(shell.get_submodule(family.blocks)):
        for kind in family.units:
            for linear in kind.linears:
                full = f"{family.blocks}.{number}.{linear}.weight"
                held = _look_up(headers, files, _find_tensor(full, family, files))
                stored[held.dtype] += block.get_submodule(linear).weight.numel()
    return STORED.get(stored.most_common(1)[0][0], torch.float16)


def _find_tensor(parameter: str, family: Family, files: Mapping[str, Path]) -> str:
    """The stored tensor that holds a parameter, by itself or among other experts'."""
    name = stored_name(parameter, files)
    part = find_part(name, family.experts, files)
    return part.tensor if part else name


def _look_up(
    headers: dict[Path, Mapping[str, StoredTensor]], files: Mapping[str, Path], name: str
) -> StoredTensor:
    """What a tensor's file says of it; a file's header is read once."""
    path = files[name]
    if path not in headers:
        headers[path] = read_header(path).tensors
    return headers[path][held_name(headers[path], name)]


def cast(name: str, values: Tensor, dtype: torch.dtype) -> Tensor:
    """`values` as stored in a 16-bit type. InputError, with their `name`, where it cannot hold
    them."""
    stored = values.to(dtype)
    if dtype == torch.float16 and not is_finite(stored):
        raise too_large(name, float(values.abs().max()))
    return stored


def check_range(model: SourceModel) -> None:
    """Raise InputError for a stored parameter that float16 cannot hold, where that is served. What
    is stored in float16 is not read, and neither are the masks that old checkpoints keep."""
    if model.dtype != torch.float16:
        return
    headers: dict[Path, Mapping[str, StoredTensor]] = {}
    parameters = (name for name, _ in model.list_parameters())
    for name in dict.fromkeys(_find_tensor(n, model.family, model.files) for n in parameters):
        if name not in model.files or _look_up(headers, model.files, name).dtype == "F16":
            continue
        path = model.files[name]
        with report_unreadable(path):
            largest = max(float(part.abs().max()) for _, part in read_parts(path, name))
        # NaN and infinity are their reader's to refuse.
        if largest > torch.finfo(torch.float16).max and math.isfinite(largest):
            raise too_large(f"tensor {name} in {path.name}", largest)


class ServedModel(SourceModel):
    """A model with every tensor as it is stored in the type that it is served in."""

    def read(self, names: Iterable[str], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Tensors by name, rounded to the served type; given as `dtype`, or in the served type."""
        found = super().read(names, self.dtype)
        return found if dtype is None else {name: value.to(dtype) for name, value in found.items()}

    def read_rows(self, name: str, rows: Tensor) -> Tensor:
        """These rows of a matrix, rounded to the served type, float32 [rows, columns]."""
        return cast(name, super().read_rows(name, rows), self.dtype).float()


def put_outside(whole: Any, model: SourceModel) -> None:
    """Round to the served type, in place, what transformers' `whole` model has outside the blocks
    of `model`."""
    for name, parameter in whole.named_parameters():
        if not name.startswith(f"{model.family.blocks}."):
            parameter.data = cast(name, parameter.data, model.dtype).float()


@dataclass(frozen=True)
class Ends:
    """What runs before and after the blocks, by whether it is as a checkpoint stores it (True) or
    the reference's; one object for both where they are the same."""

    entrances: Mapping[bool, Entrance]
    heads: Mapping[bool, Head]


def read_ends(model: SourceModel) -> Ends:
    """The embeddings and the head of `model`, and as its checkpoint stores them."""
    entrance, head = model.read_entrance(), model.read_head()
    outside = served_outside(model)
    if outside is None:
        return Ends({False: entrance, True: entrance}, {False: head, True: head})
    return Ends(
        {False: entrance, True: outside.read_entrance()}, {False: head, True: outside.read_head()}
    )


def served_outside(model: SourceModel) -> SourceModel | None:
    """A model whose embeddings, final norm and head are those of `model` as its checkpoint stores
    them; None where that changes nothing, because `model` has them in the served type already."""
    headers: dict[Path, Mapping[str, StoredTensor]] = {}
    inside = f"{model.family.blocks}."
    names = [stored_name(name, model.files) for name, _ in model.shell.named_parameters()]
    outside = [name for name in names if name in model.files and not name.startswith(inside)]
    if all(STORED.get(_look_up(headers, model.files, n).dtype) == model.dtype for n in outside):
        return None
    return ServedModel(**{each.name: getattr(model, each.name) for each in fields(model)})
