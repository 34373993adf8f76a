"""The 16-bit type that a model is served in: which it is, what its range holds, and the model's
embeddings and head as they are stored in it."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from awqscope.mixedprec.families.family import Family
from awqscope.mixedprec.models.catalogue import Stored, find_holder, stored_name
from awqscope.mixedprec.models.dtypes import AUTO
from awqscope.mixedprec.models.ends import Entrance, Head
from awqscope.mixedprec.models.source import SourceModel
from awqscope.mixedprec.models.weights import (
    is_finite,
    read_parts,
    report_unreadable,
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
    asked: str,
    said: torch.dtype | None,
    family: Family,
    shell: Any,
    tensors: Mapping[str, Stored],
) -> torch.dtype:
    """The type to serve in: what is asked, else what config.json `said`, else the one that most
    parameters of the blocks' linears are stored in; float16 where that is no 16-bit type."""
    if asked != AUTO:
        return DTYPES[asked]
    if said is not None:
        return said
    stored: Counter[str] = Counter()
    for number, block in enumerate(shell.get_submodule(family.blocks)):
        for kind in family.units:
            for linear in kind.linears:
                full = f"{family.blocks}.{number}.{linear}.weight"
                held = tensors[_find_tensor(full, family, tensors)]
                stored[held.dtype] += block.get_submodule(linear).weight.numel()
    return STORED.get(stored.most_common(1)[0][0], torch.float16)


def _find_tensor(parameter: str, family: Family, tensors: Mapping[str, Stored]) -> str:
    """The stored tensor that holds a parameter, by itself or among other experts'."""
    return find_holder(stored_name(parameter, tensors), family, tensors)


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
    parameters = (name for name, _ in model.list_parameters())
    for name in dict.fromkeys(_find_tensor(n, model.family, model.tensors) for n in parameters):
        stored = model.tensors.get(name)
        if stored is None or stored.dtype == "F16":
            continue
        with report_unreadable(stored.path):
            largest = max(float(part.abs().max()) for _, part in read_parts(stored))
        # NaN and infinity are their reader's to refuse.
        if largest > torch.finfo(torch.float16).max and math.isfinite(largest):
            raise too_large(f"tensor {name} in {stored.path.name}", largest)


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
    inside = f"{model.family.blocks}."
    names = [stored_name(name, model.tensors) for name, _ in model.shell.named_parameters()]
    outside = [name for name in names if name in model.tensors and not name.startswith(inside)]
    if all(STORED.get(model.tensors[name].dtype) == model.dtype for name in outside):
        return None
    return ServedModel(**{each.name: getattr(model, each.name) for each in fields(model)})
