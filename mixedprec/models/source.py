"""A model directory read piece by piece: the shell of transformers' model without its weights, and
each block, the embedding or the head filled from safetensors when it is needed.

Nothing is unpickled, and no code from the directory is run unless it is trusted; what a directory
may hold is checked by `mixedprec.files` (`untrusted.py`, `header.py`) before a library sees it.
"""

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.families.experts import split_experts
from awqscope.mixedprec.families.table import Family, find_family, fit_family
from awqscope.mixedprec.files.untrusted import list_visible
from awqscope.mixedprec.gguf.origin import read_origin
from awqscope.mixedprec.models.catalogue import (
    Catalogue,
    Stored,
    find_holder,
    find_stored,
    stamp_file,
    stored_name,
)
from awqscope.mixedprec.models.ends import Entrance, FinalNorm, Head, Recorder
from awqscope.mixedprec.models.streams import CPU
from awqscope.mixedprec.models.weights import (
    hash_file,
    is_finite,
    not_finite,
    read_parts,
    read_slice,
    read_tensor,
    report_unreadable,
)

# Python that may come with a model.
CODE = "*.py"
HEAD = "lm_head.weight"


@dataclass(frozen=True)
class SourceModel:
    """An FP16/BF16 checkpoint on disk.

    name: the hub id or path that it was asked for by. path: its directory. config: its config.json
    as transformers reads it. family: where its blocks and linears are. dtype: the 16-bit type it is
    served in. catalogue: what its files hold. tensors: the same by the names of transformers' whole
    model. shell: transformers' model with its parameters on meta. trust_remote_code: whether Python
    from the directory may build it.
    """

    name: str
    path: Path
    config: PretrainedConfig
    family: Family
    dtype: torch.dtype
    catalogue: Catalogue
    tensors: Mapping[str, Stored]
    shell: Any
    trust_remote_code: bool = field(default=False, kw_only=True)

    def __reduce__(self) -> tuple[Any, ...]:
        """It is pickled without family and shell, which another process builds again, and without
        a configuration of the directory's own class, which only the directory's Python can
        build."""
        made = ("family", "shell", "config")
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in made}
        config = None if self.trust_remote_code else self.config
        return _restore, (type(self), kept, config)

    @property
    def blocks(self) -> int:
        return len(self.shell.get_submodule(self.family.blocks))

    @property
    def quantized_before(self) -> str | None:
        """How its weights were quantized before they came here, where that is known."""
        return read_origin(self.path)

    @property
    def aside(self) -> tuple[str, ...]:
        """Names of further files with weights beside its own, which are not read."""
        return self.catalogue.aside

    @property
    def weight_paths(self) -> list[Path]:
        """The files that hold its tensors, in order."""
        return sorted({stored.path for stored in self.tensors.values()})

    @property
    def tied(self) -> bool:
        """Whether the head multiplies with the embedding: a head that is stored beside it is used
        whatever config.json says."""
        own = stored_name(HEAD, self.tensors) in self.tensors
        return bool(self.config.tie_word_embeddings) and not own

    def list_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter by name, without values, and without a head that is the embedding."""
        for name, parameter in self.shell.named_parameters():
            if name != HEAD or not self.tied:
                yield name, parameter

    def count_parameters(self) -> int:
        """As transformers counts them: a head that is equal to the embedding is the embedding."""
        count = sum(parameter.numel() for _, parameter in self.list_parameters())
        if not self.config.tie_word_embeddings or self.tied:
            return count
        head, embedding = stored_name(HEAD, self.tensors), f"{self.family.embedding}.weight"
        pairs = zip(
            read_parts(self.tensors[head]),
            read_parts(self.tensors[embedding]),
            strict=True,
        )
        same = all(torch.equal(ours, theirs) for (_, ours), (_, theirs) in pairs)
        return count - self.shell.lm_head.weight.numel() if same else count

    def prefix(self, block: int) -> str:
        """Full module name of a block."""
        return f"{self.family.blocks}.{block}"

    def read(self, names: Iterable[str], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Tensors by name, as `dtype` or in the stored type. InputError for one missing or not
        finite."""
        found = {}
        for name in names:
            holder = find_holder(name, self.family, self.tensors)
            if holder not in self.tensors:
                raise InputError(f"{self.path} has no tensor {name}", "put back its weights")
            stored = find_stored(name, self.family, self.tensors)
            self._check_unchanged(stored.path)
            with report_unreadable(stored.path):
                found[name] = read_tensor(stored, dtype)
            if not is_finite(found[name]):
                raise not_finite(holder, self.tensors[holder], dtype)
        return found

    def read_rows(self, name: str, rows: Tensor) -> Tensor:
        """These rows of a matrix, float32 [rows, columns]. InputError for one that is not finite,
        wherever."""
        stored, found = self.tensors[name], []
        self._check_unchanged(stored.path)
        with report_unreadable(stored.path):
            for first, part in read_parts(stored):
                if not is_finite(part):
                    raise not_finite(name, stored)
                here = rows[(rows >= first) & (rows < first + len(part))]
                found.append(part[here - first].float())
        return torch.cat(found)

    def _check_unchanged(self, path: Path) -> None:
        """Raise InputError for a weights file that has gone or changed since it was opened."""
        stamp = stamp_file(path)
        if stamp is None:
            raise InputError(
                f"{path} has gone since the model was opened",
                "put it back and run the same command again",
            )
        if self.catalogue.stamps.get(path, stamp) != stamp:
            raise InputError(
                f"{path} has changed since the model was opened",
                "put back what it was and run the same command again",
            )

    def _fill(self, module: nn.Module, prefix: str, without: Collection[str] = ()) -> nn.Module:
        """`module` with its parameters, float32, from the tensors under `prefix`; those that are
        not on meta are left as they are, and those of the modules `without`."""
        names = [
            name
            for name, value in module.named_parameters()
            if value.is_meta and name.rpartition(".")[0] not in without
        ]
        full = {name: stored_name(f"{prefix}.{name}", self.tensors) for name in names}
        stored = self.read(full.values(), torch.float32)
        state = {name: stored[full[name]] for name in names}
        module.load_state_dict(state, strict=False, assign=True)
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        return module

    def read_block(self, block: int, device: torch.device = CPU) -> nn.Module:
        """A decoder layer of its own with its weights in float32 on `device`."""
        name = self.prefix(block)
        return self._fill(copy.deepcopy(self.shell.get_submodule(name)), name).to(device)

    def read_rest(self, block: int, linears: Collection[str]) -> nn.Module:
        """A decoder layer of its own as `read_block` has it, with these of its linears left on
        meta."""
        name = self.prefix(block)
        return self._fill(copy.deepcopy(self.shell.get_submodule(name)), name, linears)

    def read_linear(self, block: int, linear: str, first: int, stop: int) -> Tensor:
        """Rows `first` to `stop` of the weight of a block's linear, float32. InputError for one
        that is missing or not finite."""
        name = stored_name(f"{self.prefix(block)}.{linear}.weight", self.tensors)
        holder = find_holder(name, self.family, self.tensors)
        if holder not in self.tensors:
            raise InputError(f"{self.path} has no tensor {name}", "put back its weights")
        stored = find_stored(name, self.family, self.tensors)
        self._check_unchanged(stored.path)
        with report_unreadable(stored.path):
            rows = read_slice(stored, first, stop)
        if not is_finite(rows):
            raise not_finite(holder, self.tensors[holder])
        return rows.float()

    def block_shell(self, block: int) -> nn.Module:
        """The decoder layer without weights: its structure alone."""
        return self.shell.get_submodule(self.prefix(block))

    def read_entrance(self, tokens: Tensor | None = None) -> "Entrance":
        """The embedding and whatever else comes before the first block, on the CPU.

        tokens: sorted ids, the only ones that it will be given: of a large vocabulary the rest
        takes no memory."""
        base_name = self.shell.base_model_prefix
        base = copy.deepcopy(self.shell.get_submodule(base_name))
        recorders = [Recorder(self.family.returns_tuple) for _ in range(self.blocks)]
        base.set_submodule(
            self.family.blocks.removeprefix(base_name + "."), nn.ModuleList(recorders)
        )
        base.set_submodule(self.family.norm.removeprefix(base_name + "."), nn.Identity())
        if tokens is not None:
            embedding: Any = base.get_submodule(self.family.embedding.removeprefix(base_name + "."))
            name = stored_name(f"{self.family.embedding}.weight", self.tensors)
            rows = self.read_rows(name, tokens)
            embedding.weight = nn.Parameter(rows, requires_grad=False)
            # It says which row has no gradient, and has to be a row.
            embedding.padding_idx = None
        self._fill(base, base_name)
        return Entrance(base, recorders, tokens)

    def read_head(self, device: torch.device = CPU) -> "Head":
        """The final norm and the language-model head on `device`."""
        shell = copy.deepcopy(self.shell)
        norm = self._fill(shell.get_submodule(self.family.norm), self.family.norm)
        decoder = self.family.norm.rpartition(".")[0]
        shell.set_submodule(decoder, FinalNorm(norm))
        if self.tied:
            name = self.family.embedding + ".weight"
            weight = self.read([name], torch.float32)[name]
            shell.lm_head.weight = nn.Parameter(weight, requires_grad=False)
        self._fill(shell.lm_head, "lm_head")
        for module in (norm, shell.lm_head):
            module.to(device)
        return Head(shell, decoder)

    def read_whole(self) -> Any:
        """transformers' model with every weight in float32; it has to fit in memory."""
        whole = copy.deepcopy(self.shell)
        base_name = self.shell.base_model_prefix
        self._fill(whole.get_submodule(base_name), base_name)
        if self.tied:
            whole.lm_head.weight = whole.get_submodule(self.family.embedding).weight
        self._fill(whole.lm_head, "lm_head")
        return whole

    def other_tensors(self) -> list[str]:
        """Names of stored tensors outside the blocks (embedding, final norm, head)."""
        start = self.family.blocks + "."
        return sorted(name for name in self.tensors if not name.startswith(start))

    @property
    def hub_id(self) -> str | None:
        """Its id on the hub, by where the hub's client keeps it; None for any other directory."""
        parts = self.path.parts
        if len(parts) < 3 or parts[-2] != "snapshots" or not parts[-3].startswith("models--"):
            return None
        return parts[-3].removeprefix("models--").replace("--", "/", 1)

    def hash(self) -> dict[str, str]:
        """SHA-256 of config.json and of every weights file, by file name; of the code too where it
        is trusted."""
        paths = [self.path / "config.json", *self.weight_paths]
        paths += list_visible(self.path, CODE) if self.trust_remote_code else []
        return {path.relative_to(self.path).as_posix(): hash_file(path) for path in paths}


def make_shell(
    config: PretrainedConfig, family: Family, name: str, *, trust_remote_code: bool = False
) -> Any:
    """transformers' model with its parameters on meta, and experts as linears. InputError, with the
    model's `name`, where only some of its blocks have experts."""
    with init_empty_weights(include_buffers=False):
        shell = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=trust_remote_code
        )
        if family.experts is not None:
            for block in shell.get_submodule(family.blocks):
                split_experts(block, family.experts, name)
    return shell.eval()


def _restore(
    kind: type[SourceModel], kept: dict[str, Any], config: PretrainedConfig | None
) -> SourceModel:
    name, trusted = kept["name"], kept["trust_remote_code"]
    if config is None:
        config = AutoConfig.from_pretrained(kept["path"], trust_remote_code=trusted)
        config.model_type = type(config).model_type
    family = fit_family(find_family(config.model_type), config, name)
    shell = make_shell(config, family, name, trust_remote_code=trusted)
    return kind(**kept, config=config, family=family, shell=shell)
