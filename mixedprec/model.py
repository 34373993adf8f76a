"""A model directory read piece by piece: the shell of transformers' model without its weights, and
each block, the embedding or the head filled from safetensors when it is needed.

Nothing is unpickled, and no code from the directory is run unless it is trusted; what a directory
may hold is checked by `untrusted.py` and `safetensors_header.py` before a library sees it.
"""

import copy
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPast

from mixedprec.errors import InputError
from mixedprec.families import FAMILIES, Family, find_family
from mixedprec.safetensors_header import read_header
from mixedprec.untrusted import check_blocks, check_config, check_directory, read_json

WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md")
CODE = "*.py"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# Names that older checkpoints give a module of today's transformers.
OLD_NAMES = {"lm_head.weight": "embed_out.weight"}
TOKENS_A_BATCH = 256


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
        for name in names:
            if name not in self.files:
                raise InputError(
                    f"{self.path} has no tensor {name}", "download the whole checkpoint again"
                )
            by_file.setdefault(self.files[name], []).append(name)
        tensors = {}
        for path, wanted in by_file.items():
            self._check_unchanged(path)
            for name in wanted:
                tensors[name] = _read_tensor(path, name, dtype)
                if not is_finite(tensors[name]):
                    raise InputError(
                        f"tensor {name} in {path.name} holds NaN or infinity",
                        "repair or re-download the checkpoint",
                    )
        return tensors

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
        """`module` with its parameters, float32, from the tensors under `prefix`."""
        names = [name for name, _ in module.named_parameters()]
        full = {name: stored_name(f"{prefix}.{name}", self.files) for name in names}
        stored = self.read(full.values(), torch.float32)
        state = {name: stored[full[name]] for name in names}
        module.load_state_dict(state, strict=False, assign=True)
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        return module

    def read_block(self, block: int) -> nn.Module:
        """A decoder layer of its own with its weights in float32."""
        name = self.prefix(block)
        return self._fill(copy.deepcopy(self.shell.get_submodule(name)), name)

    def block_shell(self, block: int) -> nn.Module:
        """The decoder layer without weights: its structure alone."""
        return self.shell.get_submodule(self.prefix(block))

    def read_entrance(self) -> "Entrance":
        """The embedding and whatever else comes before the first block."""
        base_name = self.shell.base_model_prefix
        base = copy.deepcopy(self.shell.get_submodule(base_name))
        recorders = [_Recorder() for _ in range(self.blocks)]
        base.set_submodule(
            self.family.blocks.removeprefix(base_name + "."), nn.ModuleList(recorders)
        )
        base.set_submodule(self.family.norm.removeprefix(base_name + "."), nn.Identity())
        self._fill(base, base_name)
        return Entrance(base, recorders)

    def read_head(self) -> "Head":
        """The final norm and the language-model head."""
        shell = copy.deepcopy(self.shell)
        norm = self._fill(shell.get_submodule(self.family.norm), self.family.norm)
        shell.set_submodule(self.shell.base_model_prefix, _FinalNorm(norm))
        if self.config.tie_word_embeddings and "lm_head.weight" not in self.files:
            name = self.family.embedding + ".weight"
            weight = self.read([name], torch.float32)[name]
            shell.lm_head.weight = nn.Parameter(weight, requires_grad=False)
        else:
            self._fill(shell.lm_head, "lm_head")
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

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        self.hidden, self.kwargs = hidden_states, kwargs
        return hidden_states


class _FinalNorm(nn.Module):
    """Stands where the base model would: all that is left of it is its final norm."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, *args: Any, inputs_embeds: Tensor, **kwargs: Any) -> BaseModelOutputWithPast:
        return BaseModelOutputWithPast(last_hidden_state=self.norm(inputs_embeds))


class Entrance:
    """What runs before the blocks. `enter` gives the stream; `block_kwargs` what each block is
    called with beside it (mask, positions), for one window, to be broadcast over a batch."""

    def __init__(self, base: nn.Module, recorders: list[_Recorder]):
        self._base = base
        self._recorders = recorders

    @torch.no_grad()
    def enter(self, windows: Tensor) -> Tensor:
        """Token ids [n, length] to hidden states [n, length, d], float32."""
        self._base(input_ids=windows, use_cache=False)
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


def _read_tensor(path: Path, name: str, dtype: torch.dtype | None) -> Tensor:
    """A tensor of a file, as `dtype` or in the stored type. InputError where it cannot be read."""
    try:
        # Opened for each: what has been read of a file stays in memory while it is open.
        with safe_open(path, framework="pt") as file:
            mapped = file.get_tensor(name)
            return mapped.to(dtype or mapped.dtype, copy=True)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"tensor {name} in {path} cannot be read ({error})", "download the file again"
        ) from error


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


def enter_blocks(model: SourceModel, windows: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
    """The stream [n, length, d] before the first block, and every block's keyword arguments."""
    entrance = model.read_entrance()
    all_kwargs = entrance.block_kwargs(windows.shape[1])
    return torch.cat([entrance.enter(batch) for batch in windows.split(8)]), all_kwargs


def batch_size(length: int) -> int:
    """Windows in one forward. Fixed for a run, so that equal streams stay equal to the last bit."""
    return max(1, TOKENS_A_BATCH // length)


@torch.no_grad()
def advance(block: nn.Module, stream: Tensor, kwargs: dict[str, Any]) -> None:
    """Push a stream [windows, length, d] through a block, in place."""
    for batch in stream.split(batch_size(stream.shape[1])):
        batch.copy_(run_block(block, batch, kwargs))


def run_block(block: nn.Module, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
    """A block's output for a stream [n, length, d]."""
    output = block(hidden, **kwargs)
    return output[0] if isinstance(output, tuple) else output


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


def stored_name(name: str, files: dict[str, Path]) -> str:
    """What a parameter is called in this checkpoint."""
    old = OLD_NAMES.get(name, name)
    return old if name not in files and old in files else name


def _check_shapes(path: Path, shell: Any, files: dict[str, Path], tied: bool) -> None:
    """Raise InputError for a parameter that the checkpoint lacks or holds in another shape."""
    wanted: dict[Path, dict[str, list[int]]] = {}
    for name, parameter in shell.named_parameters():
        stored = stored_name(name, files)
        if name == "lm_head.weight" and tied and stored not in files:
            continue
        if stored not in files:
            raise InputError(
                f"{path} has no tensor {stored}", "download the whole checkpoint again"
            )
        wanted.setdefault(files[stored], {})[stored] = list(parameter.shape)
    for file, shapes in wanted.items():
        with safe_open(file, framework="pt") as opened:
            for name, shape in shapes.items():
                found = opened.get_slice(name).get_shape()
                if found != shape:
                    raise InputError(
                        f"tensor {name} has shape {found} where config.json means {shape}",
                        "use the config.json that came with these weights",
                    )


def _served_dtype(files: dict[str, Path], probe: str) -> torch.dtype:
    """The 16-bit type to serve in: the stored one; float16 for a checkpoint in float32."""
    with safe_open(files[probe], framework="pt") as file:
        stored = file.get_slice(probe).get_dtype()
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
    family = find_family(config.model_type)
    if raw.get("quantization_config"):
        raise InputError(f"{name} is already quantized", "give the FP16 or BF16 model it came from")
    files = index_tensors(path)
    embedding = family.embedding + ".weight"
    if embedding not in files:
        raise InputError(f"{path} has no tensor {embedding}", "download the whole checkpoint again")
    if family is FAMILIES["stablelm"] and getattr(config, "use_parallel_residual", False):
        raise InputError(
            f"{name} is a StableLM with parallel residuals, which autoawq would scale wrongly",
            "use a model whose blocks have two norms",
        )
    check_blocks(path, family.blocks, config.num_hidden_layers, files)
    try:
        with init_empty_weights(include_buffers=False):
            shell = AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, trust_remote_code=trust_remote_code
            )
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, OSError) as error:
        raise InputError(
            f"{path / 'config.json'} does not describe a model ({error})", "repair it"
        ) from error
    _check_shapes(path, shell, files, config.tie_word_embeddings)
    dtype = _served_dtype(files, embedding)
    return SourceModel(
        name,
        path,
        config,
        family,
        dtype,
        files,
        shell.eval(),
        trust_remote_code=trust_remote_code,
        stamps=stamp_files(files),
    )
