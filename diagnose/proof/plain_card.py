"""The model card of a plain model that was written from a quantized checkpoint: records in, text
out. What the checkpoint's own card says stands behind it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from awqscope.diagnose.proof.card import BEGIN, END, SECTION, name_text, split_card
from awqscope.mixedprec.words import write_size

# Entries of a card that are not true of the plain model, or of no other than the checkpoint.
NOT_ITS_OWN = ("model-index", "base_model_relation", "library_name", "quantized_by")
OURS = ("dequantized", "awqscope")
# Tags that name a format or a width.
OF_A_FORMAT = re.compile(
    r"\d+-?bits?|(auto-?)?(awq|gptq)\w*|auto-?round|bitsandbytes|bnb\w*|compressed-tensors|gguf|"
    r"hqq|int\d|llmcompressor|llm-compressor|mlx|modelopt|nncf|openvino|quantized|quark|torchao",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Dequantized:
    """A plain model. source: the checkpoint that it was made from, as it was given. hub_id: of
    that, None for a directory or a file. architecture: its model type. kind: the checkpoint's
    widths and format, such as "4-bit GPTQ". dtype, bytes, parameters: the plain model's. version:
    of awqscope. quantized: whether the checkpoint was, and not only fused by a server."""

    source: str
    hub_id: str | None
    architecture: str
    kind: str
    dtype: str
    bytes: int
    parameters: int
    version: str
    quantized: bool = True


def write_plain_card(made: Dequantized, existing: str) -> str:
    """The whole README.md. existing: the checkpoint's card; may be empty."""
    metadata, body = split_card(existing)
    head = yaml.safe_dump(_keep(metadata, made), sort_keys=False, allow_unicode=True)
    rest = SECTION.sub("", body).strip("\n")
    parts = [f"---\n{head}---", f"{BEGIN}\n{_write_section(made)}"]
    if rest:
        parts += [f"The rest of this card is the checkpoint's.\n{END}", rest]
    else:
        parts[-1] += f"\n{END}"
    return "\n\n".join(parts) + "\n"


def _keep(metadata: Mapping[str, Any], made: Dequantized) -> dict[str, Any]:
    """The front matter: the checkpoint's, without what is said of its format."""
    kept = {key: value for key, value in metadata.items() if key not in (*NOT_ITS_OWN, "tags")}
    if made.hub_id is not None:
        kept["base_model"] = made.hub_id
    tags = metadata.get("tags") or []
    own = [str(tag) for tag in (tags if isinstance(tags, list) else [tags])]
    own = [tag for tag in own if not OF_A_FORMAT.fullmatch(tag) and tag not in OURS]
    return {**kept, "library_name": "transformers", "tags": [*own, *OURS]}


def _write_section(made: Dequantized) -> str:
    name = made.hub_id or name_text(made.source)
    shown = f"[{name}](https://huggingface.co/{name})" if made.hub_id else f"`{name}`"
    model = f"{shown} ({made.architecture}, {made.parameters:,} parameters"
    if made.quantized:
        done = "dequantized"
        said = (
            f"The weights of {model}; {made.kind}), each written out as the number that it stands "
            f"for, in {made.dtype}. Its size is a plain model's, {write_size(made.bytes)}. Its "
            "quality is the quantized one's: what quantization lost does not come back."
        )
    else:
        done = "unfused"
        said = (
            f"The weights of {model}), with the linears that a server had fused as linears of "
            f"their own again, in {made.dtype}: {write_size(made.bytes)}. Nothing was quantized."
        )
    return (
        f"# {name}, {done}\n\n{said}\n\n"
        f"By awqscope {made.version}:\n\n"
        f"```\nawqscope dequantize CHECKPOINT --out MODEL --dtype {made.dtype}\n```"
    )
