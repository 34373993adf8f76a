"""A model directory read piece by piece: the shell of transformers' model without its weights, and
each block, the embedding or the head filled from safetensors when it is needed.

Nothing is unpickled, and no code from the directory is run unless it is trusted; what a directory
may hold is checked by `untrusted.py` and `safetensors_header.py` before a library sees it.
"""

import contextlib
import copy
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from mixedprec.errors import InputError
from mixedprec.experts import Part, find_part, split_experts
from mixedprec.families import FAMILIES, Family, find_family, fit_family
from mixedprec.safetensors_header import read_header
from mixedprec.streams import (
    CPU,
    Stream,
    StreamSpace,
    as_stream,
    batch_size,
    in_memory,
    list_batches,
    list_slices,
)
from mixedprec.untrusted import check_blocks, check_config, check_directory, read_json

WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md")
CODE = "*.py"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# Names that older checkpoints give a module of today's transformers.
OLD_NAMES = {"lm_head.weight": "embed_out.weight"}
# What is read of a file stays in memory while it is open: large tensors come in parts.
BYTES_A_READ = 64 * 2**20


@dataclass(frozen=True)
class SourceModel:
    """An FP16/BF16 checkpoint on disk. `files`: tensor name -> safetensors file. `dtype`: the
    16-bit type it is served in. `shell`: transformers' model with its parameters on meta.
    `trust_remote_code`: whether the directory's own Python makes it. `stamps`: time and size of
    every weights file when it was opened."""

    name: str
    path: Path
    config: PretrainedConfig
    family: Family
    dtype: torch.dtype
    files: dict[str, Path]
    shell: Any
    trust_remote_code: bool = field(default=False, kw_only=True)
    stamps: Mapping[Path, tuple[int, int]] = field(default_factory=dict, kw_only=True)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, it goes without family and shell, which another process makes anew."""
        made = ("family", "shell")
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in made}
        return _restore, (type(self), kept, self.shell.config)

    @property
    def blocks(self) -> int:
        return len(self.shell.get_submodule(self.family.blocks))

    def prefix(self, block: int) -> str:
        """Full module name of a block."""
        return f"{self.family.blocks}.{block}"

    def read(self, names: Iterable[str], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Tensors by name, as `dtype` or in the stored type. InputError for one missing or not
        finite."""
        by_file: dict[Path, list[str]] = {}
        parts: dict[str, Part] = {}
        for name in names:
            part = find_part(name, self.family.experts, self.files)
            if part is not None:
                parts[name] = part
            elif name not in self.files:
                raise InputError(
                    f"{self.path} has no tensor {name}", "download the whole checkpoint again"
                )
            by_file.setdefault(self.files[part.tensor if part else name], []).append(name)
        tensors = {}
        for path, wanted in by_file.items():
            self._check_unchanged(path)
            for name in wanted:
                with _report_unreadable(path):
                    tensors[name] = _read_tensor(path, name, dtype, parts.get(name))
                if not is_finite(tensors[name]):
                    raise _not_finite(name, path)
        return tensors

    def read_rows(self, name: str, rows: Tensor) -> Tensor:
        """These rows of a matrix, float32 [rows, columns]. InputError for one that is not finite,
        wherever."""
        path, found = self.files[name], []
        self._check_unchanged(path)
        with _report_unreadable(path):
            for first, part in _read_parts(path, name):
                if not is_finite(part):
                    raise _not_finite(name, path)
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
        if self.stamps.get(path, stamp) != stamp:
            raise InputError(
                f"{path} has changed since the model was opened",
                "put back what it was and run the same command again",
            )

    def _fill(self, module: nn.Module, prefix: str) -> nn.Module:
        """`module` with its parameters, float32, from the tensors under `prefix`; those that are
        not on meta are left as they are."""
        names = [name for name, value in module.named_parameters() if value.is_meta]
        full = {name: stored_name(f"{prefix}.{name}", self.files) for name in names}
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

    def block_shell(self, block: int) -> nn.Module:
        """The decoder layer without weights: its structure alone."""
        return self.shell.get_submodule(self.prefix(block))

    def read_entrance(self, tokens: Tensor | None = None) -> "Entrance":
        """The embedding and whatever else comes before the first block, on the CPU.

        tokens: sorted ids, the only ones that it will be given: of a large vocabulary the rest
        takes no memory."""
        base_name = self.shell.base_model_prefix
        base = copy.deepcopy(self.shell.get_submodule(base_name))
        recorders = [_Recorder(self.family.returns_tuple) for _ in range(self.blocks)]
        base.set_submodule(
            self.family.blocks.removeprefix(base_name + "."), nn.ModuleList(recorders)
        )
        base.set_submodule(self.family.norm.removeprefix(base_name + "."), nn.Identity())
        if tokens is not None:
            embedding: Any = base.get_submodule(self.family.embedding.removeprefix(base_name + "."))
            name = stored_name(f"{self.family.embedding}.weight", self.files)
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
        shell.set_submodule(self.family.norm.rpartition(".")[0], _FinalNorm(norm))
        if self.config.tie_word_embeddings and "lm_head.weight" not in self.files:
            name = self.family.embedding + ".weight"
            weight = self.read([name], torch.float32)[name]
            shell.lm_head.weight = nn.Parameter(weight, requires_grad=False)
        else:
            self._fill(shell.lm_head, "lm_head")
        for module in (norm, shell.lm_head):
            module.to(device)
        return Head(shell)

    def read_whole(self) -> Any:
        """transformers' model with every weight in float32, for one that fits in memory."""
        whole = copy.deepcopy(self.shell)
        base_name = self.shell.base_model_prefix
        self._fill(whole.get_submodule(base_name), base_name)
        if self.config.tie_word_embeddings and "lm_head.weight" not in self.files:
            whole.lm_head.weight = whole.get_submodule(self.family.embedding).weight
        else:
            self._fill(whole.lm_head, "lm_head")
        return whole

    def other_tensors(self) -> list[str]:
        """Names of stored tensors outside the blocks (embedding, final norm, head)."""
        start = self.family.blocks + "."
        return sorted(name for name in self.files if not name.startswith(start))

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
        paths = [self.path / "config.json", *sorted(set(self.files.values()))]
        paths += sorted(self.path.glob(CODE)) if self.trust_remote_code else []
        return {path.name: hash_file(path) for path in paths}


class _Recorder(nn.Module):
    """Stands where a block would: keeps what it was called with, passes the stream on."""

    hidden: Tensor
    kwargs: dict[str, Any]

    def __init__(self, returns_tuple: bool):
        super().__init__()
        self._returns_tuple = returns_tuple

    def forward(
        self, hidden_states: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor | tuple[Tensor, None]:
        self.hidden, self.kwargs = hidden_states, kwargs
        return (hidden_states, None) if self._returns_tuple else hidden_states


@dataclass
class _Decoded(BaseModelOutputWithPastAndCrossAttentions):
    """What a decoder gives its head, of any architecture."""

    router_logits: tuple[Tensor, ...] | None = None


class _FinalNorm(nn.Module):
    """Stands where the decoder would: all that is left of it is its final norm."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, *args: Any, inputs_embeds: Tensor, **kwargs: Any) -> _Decoded:
        return _Decoded(last_hidden_state=self.norm(inputs_embeds))


class Entrance:
    """What runs before the blocks. `enter` gives the stream; `block_kwargs` what each block is
    called with beside it (mask, positions), for one window, to be broadcast over a batch."""

    def __init__(self, base: nn.Module, recorders: list[_Recorder], tokens: Tensor | None = None):
        self._base = base
        self._recorders = recorders
        self._tokens = tokens

    @torch.no_grad()
    def enter(self, windows: Tensor) -> Tensor:
        """Token ids [n, length] to hidden states [n, length, d], float32."""
        known = windows if self._tokens is None else torch.searchsorted(self._tokens, windows)
        self._base(input_ids=known, use_cache=False)
        return self._recorders[0].hidden

    @torch.no_grad()
    def block_kwargs(self, length: int) -> list[dict[str, Any]]:
        """Keyword arguments of each block for windows of `length` tokens."""
        self._base(input_ids=torch.zeros(1, length, dtype=torch.long), use_cache=False)
        return [recorder.kwargs for recorder in self._recorders]


class Head:
    """What runs after the blocks: hidden states [n, length, d] to logits [n, length, vocabulary],
    float32, with whatever scaling or capping the architecture adds."""

    def __init__(self, shell: nn.Module):
        self._shell = shell

    def __call__(self, hidden: Tensor) -> Tensor:
        return self._shell(inputs_embeds=hidden, use_cache=False).logits


@contextlib.contextmanager
def _report_unreadable(path: Path) -> Iterator[None]:
    """InputError for a weights file that cannot be read."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error})", "download it again") from error


def stamp_file(path: Path) -> tuple[int, int] | None:
    """Time of the last change and size of a file; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def stamp_files(files: Mapping[str, Path]) -> dict[Path, tuple[int, int]]:
    """The stamps of the files that hold tensors."""
    stamps = {path: stamp_file(path) for path in set(files.values())}
    return {path: stamp for path, stamp in stamps.items() if stamp is not None}


def get_linear(block: nn.Module, name: str) -> nn.Linear:
    """The linear called `name` inside a block."""
    linear = block.get_submodule(name)
    assert isinstance(linear, nn.Linear), name
    return linear


@torch.no_grad()
def enter_blocks(
    model: SourceModel, windows: Tensor, space: StreamSpace | None = None
) -> tuple[Stream, list[dict[str, Any]]]:
    """The stream [n, length, d] before the first block, and every block's keyword arguments.

    space: where the stream is kept; None for memory."""
    count, length = windows.shape
    entrance = model.read_entrance(windows.unique())
    all_kwargs = entrance.block_kwargs(length)
    stream = None
    for part in list_slices(count, batch_size(length)):
        hidden = entrance.enter(windows[part])
        stream = stream or (space or in_memory()).empty(count, length, hidden.shape[-1])
        stream.write(part, hidden)
    assert stream is not None
    return stream, all_kwargs


def move(value: Any, device: torch.device) -> Any:
    """Keyword arguments of a block with their tensors on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: move(each, device) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(move(each, device) for each in value)
    return value


def device_of(module: nn.Module) -> torch.device:
    """Where a module computes."""
    return next(module.parameters()).device


@torch.no_grad()
def advance(block: nn.Module, stream: Stream | Tensor, kwargs: dict[str, Any]) -> None:
    """Push a stream [windows, length, d] through a block, in place. A batch goes to the device of
    the block and comes back to where the stream is kept."""
    stream, device = as_stream(stream), device_of(block)
    there = move(kwargs, device)
    for part in list_batches(stream):
        stream.write(part, run_block(block, stream.read(part).to(device), there))


def run_block(block: nn.Module, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
    """A block's output for a stream [n, length, d]."""
    output = block(hidden, **fit_kwargs(kwargs, len(hidden)))
    return output[0] if isinstance(output, tuple) else output


def _read_parts(path: Path, name: str) -> Iterator[tuple[int, Tensor]]:
    """A stored tensor a few rows at a time, each with the number of its first."""
    with safe_open(path, framework="pt") as file:
        held = held_name(file, name)
        shape = file.get_slice(held).get_shape()
    # A row of float32, the largest type of a weight.
    row = max(1, math.prod(shape[1:]) * 4)
    for part in list_slices(shape[0], max(1, BYTES_A_READ // row)):
        with safe_open(path, framework="pt") as file:
            yield part.start, file.get_slice(held)[part]


def _read_tensor(
    path: Path, name: str, dtype: torch.dtype | None, part: Part | None = None
) -> Tensor:
    """A stored tensor, or a part of one, in memory of its own, as `dtype` or in the stored type."""
    # Opened for each: what has been read of a file stays in memory while it is open.
    with safe_open(path, framework="pt") as file:
        stored = file.get_slice(held_name(file, part.tensor if part else name))
        shape = stored.get_shape()
        if part is not None:
            mapped = part.cut(stored)
        elif math.prod(shape) * 4 <= BYTES_A_READ:
            mapped = file.get_tensor(held_name(file, name))
        else:
            mapped = None
        if mapped is not None:
            return mapped.to(dtype or mapped.dtype, copy=True)
    values = torch.empty(0)
    for first, rows in _read_parts(path, name):
        if first == 0:
            values = torch.empty(shape, dtype=dtype or rows.dtype)
        values[first : first + len(rows)] = rows
    return values


def _not_finite(name: str, path: Path) -> InputError:
    return InputError(
        f"tensor {name} in {path.name} holds NaN or infinity",
        "repair or re-download the checkpoint",
    )


def fit_kwargs(kwargs: dict[str, Any], count: int) -> dict[str, Any]:
    """A block's keyword arguments, known for one window, for a batch of `count`: biases of
    positions (ALiBi) have a row a head and window, everything else is broadcast."""
    alibi = kwargs.get("alibi")
    if alibi is None:
        return kwargs
    return {**kwargs, "alibi": alibi.repeat(count, *[1] * (alibi.ndim - 1))}


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite. The sum tells, but for large values that overflow it,
    and takes no memory."""
    return bool(values.sum().isfinite()) or bool(values.isfinite().all())


def hash_file(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resolve_path(name: str, *, trust_remote_code: bool = False) -> Path:
    """The directory of a model: `name` itself, or the download of a hub id (no pickles, and code
    only where it is trusted)."""
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{name} is a file", "give the directory that holds config.json")
    try:
        wanted = [*WANTED, *([CODE] if trust_remote_code else [])]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except HFValidationError as error:
        raise InputError(f"there is no model directory {name}", "check the path") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise InputError(
            f"{name} is neither a local directory nor a model that the hub would give",
            "check the name, the network, and HF_TOKEN for gated models",
        ) from error


def index_tensors(path: Path) -> dict[str, Path]:
    """Tensor name -> file, from the headers of every safetensors file of the checkpoint.
    InputError for a file that is missing or damaged, or outside of the directory."""
    index = path / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(read_json(index)["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index} is damaged", "download the checkpoint again") from error
        for name in names:
            if not isinstance(name, str) or name != Path(name).name or name in ("", ".", ".."):
                raise InputError(
                    f"{index} names a file outside of its directory ({str(name)[:80]!r})",
                    "download the checkpoint again, from a source that you trust",
                )
        found = [path / name for name in names]
    else:
        found = sorted(path.glob("*.safetensors"))
    if not found:
        if any(any(path.glob(pattern)) for pattern in PICKLED):
            raise InputError(
                f"{path} holds its weights as a pickle, which is never loaded",
                "convert it to safetensors first (transformers: save_pretrained)",
            )
        raise InputError(f"{path} holds no safetensors file", "download the whole checkpoint")
    files: dict[str, Path] = {}
    for file in found:
        if not file.exists():
            raise InputError(f"{file} is missing", "download the whole checkpoint again")
        try:
            files |= dict.fromkeys(read_header(file).tensors, file)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{file} is truncated or damaged ({error})", "download it again"
            ) from error
    return files


def name_fully(files: dict[str, Path], family: Family) -> dict[str, Path]:
    """The tensors by the names of transformers' whole model: some checkpoints, BLOOM's and old OPTs
    among them, hold its body alone, without the first part of each name."""
    body, _, bare = f"{family.embedding}.weight".partition(".")
    if bare not in files:
        return files
    known = ("lm_head.", body + ".")
    return {n if n.startswith(known) else f"{body}.{n}": path for n, path in files.items()}


def held_name(file: Any, name: str) -> str:
    """What an open file calls the tensor `name`: see `name_fully`."""
    return name if name in file.keys() else name.partition(".")[2]


def stored_name(name: str, files: dict[str, Path]) -> str:
    """What a parameter is called in this checkpoint."""
    old = OLD_NAMES.get(name, name)
    return old if name not in files and old in files else name


def _check_shapes(
    path: Path, shell: Any, family: Family, files: dict[str, Path], tied: bool
) -> None:
    """Raise InputError for a parameter that the checkpoint lacks or holds in another shape."""
    wanted: dict[Path, dict[str, list[int]]] = {}
    parts: dict[str, Part] = {}
    for name, parameter in shell.named_parameters():
        stored = stored_name(name, files)
        if name == "lm_head.weight" and tied and stored not in files:
            continue
        part = find_part(stored, family.experts, files)
        if part is not None:
            parts[stored] = part
        elif stored not in files:
            raise InputError(
                f"{path} has no tensor {stored}", "download the whole checkpoint again"
            )
        file = files[part.tensor if part else stored]
        wanted.setdefault(file, {})[stored] = list(parameter.shape)
    for file, shapes in wanted.items():
        with safe_open(file, framework="pt") as opened:
            for name, shape in shapes.items():
                part = parts.get(name)
                whole = opened.get_slice(held_name(opened, part.tensor if part else name))
                found = part.shape(whole) if part else whole.get_shape()
                if found != shape:
                    raise InputError(
                        f"tensor {name} has shape {found} where config.json means {shape}",
                        "use the config.json that came with these weights",
                    )


def _served_dtype(files: dict[str, Path], probe: str) -> torch.dtype:
    """The 16-bit type to serve in: the stored one; float16 for a checkpoint in float32."""
    with safe_open(files[probe], framework="pt") as file:
        stored = file.get_slice(held_name(file, probe)).get_dtype()
    return torch.bfloat16 if stored == "BF16" else torch.float16


def read_config(
    path: Path, *, trust_remote_code: bool = False
) -> tuple[dict[str, Any], PretrainedConfig]:
    """config.json of a model of a supported family, as it stands and as transformers reads it.
    InputError also for a directory or a configuration that no good faith makes (`untrusted.py`)."""
    check_directory(path)
    source = path / "config.json"
    if not source.exists():
        raise InputError(f"{path} has no config.json", "give the directory of a Hugging Face model")
    try:
        raw = read_json(source)
        check_config(source, raw)
        kind = raw.get("model_type", "")
        foreign = not isinstance(kind, str) or kind not in FAMILIES
        if foreign and raw.get("auto_map") and not trust_remote_code:
            raise InputError(
                f"the architecture {kind!r} comes with Python of its own, which is not run",
                "give --trust-remote-code if you trust whoever made it",
            )
        if not trust_remote_code:
            find_family(str(kind))
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        if trust_remote_code:
            # Code of its own may bring a known architecture under another name.
            config.model_type = type(config).model_type
        return raw, config
    except (InputError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{source} cannot be used ({reason})", "repair it") from error


def open_model(name: str, *, trust_remote_code: bool = False) -> SourceModel:
    """Open a model by hub id or path; reads headers only. InputError where it cannot be used.

    trust_remote_code: run the Python that the directory brings, where its config.json names any.
    """
    path = resolve_path(name, trust_remote_code=trust_remote_code)
    raw, config = read_config(path, trust_remote_code=trust_remote_code)
    family = fit_family(find_family(config.model_type), config, name)
    if raw.get("quantization_config"):
        raise InputError(f"{name} is already quantized", "give the FP16 or BF16 model it came from")
    files = name_fully(index_tensors(path), family)
    embedding = family.embedding + ".weight"
    if embedding not in files:
        raise InputError(f"{path} has no tensor {embedding}", "download the whole checkpoint again")
    check_blocks(path, family.blocks, config.num_hidden_layers, files)
    try:
        shell = make_shell(config, family, name, trust_remote_code=trust_remote_code)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, OSError) as error:
        raise InputError(
            f"{path / 'config.json'} does not describe a model ({error})", "repair it"
        ) from error
    _check_shapes(path, shell, family, files, config.tie_word_embeddings)
    dtype = _served_dtype(files, embedding)
    return SourceModel(
        name,
        path,
        config,
        family,
        dtype,
        files,
        shell,
        trust_remote_code=trust_remote_code,
        stamps=stamp_files(files),
    )


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


def _restore(kind: type[SourceModel], kept: dict[str, Any], config: PretrainedConfig) -> Any:
    name, trusted = kept["name"], kept["trust_remote_code"]
    family = fit_family(find_family(config.model_type), config, name)
    shell = make_shell(config, family, name, trust_remote_code=trusted)
    return kind(**kept, family=family, shell=shell)
