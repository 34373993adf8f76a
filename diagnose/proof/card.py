"""The model card of a checkpoint: what it is, where its widths are, what was measured, how to load
it and how it was made, as the README.md that the Hugging Face hub shows.

Pure: records in, text out. The source model's own card is kept; awqscope's part stands between two
markers and is replaced when the checkpoint is written again. The front matter is read and written
here, not by huggingface_hub's ModelCard: it expands a stranger's YAML aliases unseen, and takes no
keys but texts. Tests read every card with it.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from awqscope.diagnose.entries.headline import Headline
from awqscope.diagnose.entries.served_type import UNLIKE, MeasuredType, write_measured_type
from awqscope.diagnose.entries.uncalibrated import write_uncalibrated
from awqscope.diagnose.options.option import list_options
from awqscope.diagnose.runs.record import Record
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.mixedprec.checkpoints.destinations import Kind, list_destinations
from awqscope.mixedprec.checkpoints.serving import write_serving
from awqscope.mixedprec.families.family import EXPERTS
from awqscope.mixedprec.recipes.recipe import Recipe
from awqscope.mixedprec.recipes.widths import explain_groups, list_changed, list_widths
from awqscope.mixedprec.scheme import FP16_BITS, sort_widths
from awqscope.mixedprec.words import join_words, write_bounded, write_size

BEGIN, END = "<!-- awqscope: begin -->", "<!-- awqscope: end -->"
FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
MOST_FRONT_MATTER = 100_000
SECTION = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
LOADERS = {
    "compressed-tensors": "transformers and compressed-tensors 0.15 to 0.17",
    "awq": "transformers and gptqmodel",
}
# By whether the run was of other weights.
HOW_TO_MEASURE: Mapping[bool, str] = {
    False: "`awqscope requantize --prove` measures it from disk and writes the numbers here.",
    True: "`awqscope compare MODEL CHECKPOINT` measures it. Its widths were chosen by what they "
    "cost another model of the same architecture.",
}
# Options of `awqscope run` that the card's command leaves out even if they are not as by default.
LEFT_OUT: Mapping[str, str] = {
    "max_memory": "it decides no number, and is another elsewhere",
    "chunk_windows": "it decides no number, and follows from the memory",
    "trust_remote_code": "whether to trust the model's Python is for the reader to say",
}


@dataclass(frozen=True)
class CardSubject:
    """The checkpoint that a card is of.

    record: of the run it was made by. proof: proof.json's content, None if it was not
    proved. bytes: of all its tensors. serving: what servers make of it, with its `type`. fmt:
    compressed-tensors or awq. dtype: what `requantize` was asked for, None for the run's type.
    base_model: hub id of the source, None for a directory, whose path is private.
    requantized: made after the run, by `awqscope requantize`. kind: what decides who loads it, None
    where that is not known. weights: the model that was quantized in place of the run's, as it was
    given; None for the run's own.
    """

    record: Record
    recipe: Recipe
    proof: Mapping[str, Any] | None
    bytes: int
    serving: Mapping[str, Any] | None = None
    fmt: str = "compressed-tensors"
    dtype: str | None = None
    base_model: str | None = None
    requantized: bool = False
    kind: Kind | None = None
    weights: str | None = None


def write_card(subject: CardSubject, existing: str) -> str:
    """The whole README.md. existing: the card that is there or the source model's; may be empty."""
    metadata, body = split_card(existing)
    head = yaml.safe_dump(card_metadata(subject, metadata), sort_keys=False, allow_unicode=True)
    found = SECTION.search(body)
    at, rest = found.span() if found else (0, 0)
    before, after = body[:at].strip("\n"), body[rest:].strip("\n")
    section = [BEGIN, _write_section(subject)]
    if before or after:
        section.append("\nThe rest of this card is the source model's.")
    parts = (before, "\n".join([*section, END]), after)
    return f"---\n{head}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """A card's front matter and its body. Front matter that is not a YAML mapping counts as none,
    and so does what no card needs and could be endless: aliases, which multiply, and sheer
    length."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found = FRONT_MATTER.match(text)
    if not found:
        return {}, text
    written = found.group(1)
    try:
        endless = len(written) > MOST_FRONT_MATTER or any(
            isinstance(event, yaml.AliasEvent) for event in yaml.parse(written)
        )
        metadata = None if endless else yaml.safe_load(written)
    except (yaml.YAMLError, RecursionError, ValueError):
        metadata = None
    return metadata if isinstance(metadata, dict) else {}, text[found.end() :]


def card_metadata(subject: CardSubject, source: Mapping[str, Any]) -> dict[str, Any]:
    """The front matter: the source's, license and languages included, with what quantization makes
    of it. Nothing is invented: what the source does not say is left out. Figures that the source
    states of itself (`model-index`) are not this checkpoint's, and how it came from its own base
    is not how this one came."""
    ours_alone = ("model-index", "base_model_relation", "library_name", "tags")
    metadata = {key: value for key, value in source.items() if key not in ours_alone}
    if subject.base_model is not None:
        metadata |= {"base_model": subject.base_model, "base_model_relation": "quantized"}
    metadata["library_name"] = "transformers"
    tags = source.get("tags") or []
    own = [str(tag) for tag in (tags if isinstance(tags, list) else [tags])]
    widths = sorted(set(subject.recipe.bits.values()) - {FP16_BITS})
    ours = ["awq", "quantized", *[f"{bits}-bit" for bits in widths], "awqscope"]
    if subject.fmt == "compressed-tensors":
        ours.insert(1, "compressed-tensors")
    metadata["tags"] = list(dict.fromkeys([*own, *ours]))
    return metadata


def _plain(text: Any) -> str:
    """A text of the run as Markdown shows it literally inside backticks, a table or a line."""
    kept = re.sub(r"\s+", " ", str(text)).replace("`", "'").replace("|", "¦")
    return kept.replace("<", "‹").replace(">", "›").strip()


def name_text(spec: Any) -> str:
    """A text or model without the directories that it is in, which are private."""
    text = str(spec)
    if text.startswith("hub:"):
        return text
    is_path = text.startswith(("/", ".", "~")) or text.count("/") > 1
    is_file = text.endswith((".txt", ".jsonl", ".parquet"))
    return text.rstrip("/").rpartition("/")[2] if is_path or is_file else text


def _name_source(subject: CardSubject) -> str:
    """What the source is called: its hub id, or the last part of its directory."""
    return subject.base_model or _name_end(subject.weights or subject.record.model)


def _name_end(model: str) -> str:
    """The last part of a directory."""
    return model.rstrip("/").rpartition("/")[2] or model


def _write_section(subject: CardSubject) -> str:
    parts = [
        _write_summary(subject),
        "## Widths",
        _write_widths(subject),
        "## Measured",
        _write_measured(subject),
        "## Loading",
        _write_loading(subject),
        "## How it was made",
        _write_making(subject),
    ]
    return "\n\n".join(parts)


def _write_summary(subject: CardSubject) -> str:
    record, spec = subject.record, subject.record.spec
    source = _plain(_name_source(subject))
    link = f"[{source}](https://huggingface.co/{source})" if subject.base_model else f"`{source}`"
    scheme = "symmetric" if spec.symmetric else "asymmetric"
    group = spec.low.write_groups()
    changed = list_changed(subject.recipe, spec.bits)
    widths = {entry.bits for entry in subject.recipe.units} - {FP16_BITS}
    said = (
        f"{link} ({_plain(record.source.architecture)}, "
        f"{record.source.parameters:,} parameters) quantized with AWQ: "
        f"{spec.bits} bits, {scheme}, {group}"
    )
    said += f", but {changed} bits." if changed else "."
    explained = explain_groups(subject.recipe)
    said += f" {explained}" if explained else ""
    if spec.rescue_bits in widths:
        said += f" Units at {spec.rescue_bits} bits are symmetric."
    if any(entry.unit.endswith(f".{EXPERTS}") for entry in subject.recipe.units):
        said += " Experts are symmetric, routers stay at 16 bits."
    uncalibrated = write_uncalibrated(record.uncalibrated)
    if uncalibrated:
        said += f" {uncalibrated}."
    said += f" Stored as {_name_format(subject.fmt)}; weights take {write_size(subject.bytes)}"
    reference = record.headline and record.headline.bytes.reference
    said += f", {write_size(reference)} at 16 bits." if reference else "."
    shown = "/".join(str(bits) for bits in sorted(widths)) + "-bit " if widths else ""
    return f"# {source}, {shown}AWQ\n\n{said}"


def _name_format(fmt: str) -> str:
    return "autoawq's GEMM format" if fmt == "awq" else "compressed-tensors (`pack-quantized`)"


def _write_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _write_widths(subject: CardSubject) -> str:
    widths = [str(width) for width in sort_widths(subject.recipe.widths.values())]
    rows = [
        [f"`{_plain(row['unit'])}`", *[row.get(width, "–") for width in widths]]
        for row in list_widths(subject.recipe)
    ]
    return (
        f"Blocks by unit, the linears that a server fuses, and width "
        f"(of {subject.record.source.blocks} blocks, from 0):\n\n"
    ) + _write_table(["unit", *[f"{width} bits" for width in widths]], rows)


def _write_measured(subject: CardSubject) -> str:
    """The numbers of 16-bit, uniform and this checkpoint, or that there are none."""
    if subject.proof is None:
        return "This checkpoint was not measured. " + HOW_TO_MEASURE[subject.weights is not None]
    headline, mine = subject.record.headline, subject.proof["measured"]
    low = subject.record.spec.bits
    head, rows = ["", "this checkpoint"], []

    def add(name: str, key: str, form: str, bounds: str | None = None, reference: str = "") -> None:
        columns = [_with_bounds(mine[key], mine.get(bounds) if bounds else None, form)]
        if headline is not None:
            spread = getattr(headline, bounds).uniform if bounds else None
            uniform = getattr(headline, key).uniform
            columns = [reference, _with_bounds(uniform, spread, form), *columns]
        rows.append([name, *columns])

    if headline is not None:
        head[1:1] = ["16-bit", f"uniform {low}-bit AWQ"]
    add("perplexity", "ppl", ".3f", reference=_write_reference(headline))
    add("ΔPPL [95%]", "delta_ppl", "+.3f")
    add("KL to 16-bit, mean, nats a token [95%]", "kl", ".5f", "kl_interval")
    add("KL, 99.9% quantile", "kl_p999", ".4f")
    add("same top token as 16-bit", "top1_agreement", ".1%")
    size = [write_size(subject.bytes)]
    if headline is not None:
        plain = (headline.bytes.reference, headline.bytes.uniform)
        size = [write_size(each) for each in plain] + size
    rows.append(["weights", *size])
    if mine["recovered"] is not None:
        given = _with_bounds(mine["recovered"], mine["recovered_interval"], ".1%")
        blank = ["", ""] if headline is not None else []
        rows.append(["lost KL given back [95%]", *blank, given])
    definition = subject.record.ppl_definition
    text = _plain(name_text(definition.text))
    said = (
        f"Perplexity is {_plain(definition.sentence)}, on `{text}` "
        f"({definition.scored_tokens:,} tokens scored, text SHA-256 "
        f"`{definition.text_sha256[:16]}…`). Intervals are a bootstrap over windows; "
        "differences are paired by token."
    )
    return "\n\n".join([_write_table(head, rows), said, _write_proof(subject.proof)])


def _write_reference(headline: Headline | None) -> str:
    return format(headline.ppl.reference, ".3f") if headline is not None else ""


def _with_bounds(value: Any, bounds: Sequence[float] | None, form: str) -> str:
    """A number with its interval; a triple holds both."""
    if isinstance(value, list | tuple):
        value, *bounds = value
    return write_bounded(value, bounds, form)


def _write_proof(proof: Mapping[str, Any]) -> str:
    checks, loader = proof["checks"], _plain(proof["loaded_with"])
    served = proof.get("served")
    of_type = ""
    if served and served["finite"]:
        of_type = f" {write_measured_type(MeasuredType(**served))}"
    if proof["passed"]:
        return (
            f"Proved from disk: {loader} loaded the checkpoint in a process of its own; the widths "
            f"of its {checks['linears']:,} linears are the recipe's, its {checks['tensors']:,} "
            "tensors and dequantized weights equal the simulated ones bit for bit, and the numbers "
            "above are measured on its own logits, in float32." + of_type
        )
    reasons = proof.get("reasons") or [UNLIKE]
    if UNLIKE not in reasons:
        return (
            f"**The proof failed**: {_plain('; '.join(reasons))}. On disk the checkpoint is what "
            "its recipe says, and the numbers above are measured in float32."
        )
    return (
        "**The proof failed**: the checkpoint on disk is not what its recipe says. "
        f"{loader} loaded it; {len(checks['wrong_width'])} linears have another width, "
        f"{len(checks['differing_on_disk'])} tensors differ, {len(checks['unexpected'])} are "
        "unexpected. Do not use it."
    )


def _write_loading(subject: CardSubject) -> str:
    has_8_bit = any(entry.bits == 8 for entry in subject.recipe.units)
    served = "vLLM, on a GPU of SM 7.5 (Marlin) or newer" if has_8_bit else "vLLM"
    checked, kind = "", None
    if subject.serving is not None:
        said = _plain(write_serving(subject.serving))
        kind = subject.serving.get("type")
        checked = f"\n\nHeld against the rules by which they match and fuse linears: {said}."
    # A type is named where it must be another than config.json's, and for servers always.
    other = kind["instead"] if kind else None
    name = f'"{other or "auto"}"'
    option = f" --dtype {other or kind['dtype']}" if kind else ""
    return f"""With {LOADERS[subject.fmt]}:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

path = "path/to/this/checkpoint"
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype={name}, device_map="auto")
```

With {served}:

```
vllm serve path/to/this/checkpoint{option}
```{checked}{_write_destinations(subject.kind)}"""


def _write_destinations(kind: Kind | None) -> str:
    """Who loads a checkpoint of this kind, as a table."""
    if kind is None:
        return ""
    rows = [
        [row.reader, f"`{row.package_and_versions}`", row.outcome + row.condition, row.remedy]
        for row in list_destinations(kind)
    ]
    table = _write_table(("reader", "with", "", "what to do"), rows)
    return f"\n\nWhere it goes (`awqscope check` looks at what is installed):\n\n{table}"


def _write_making(subject: CardSubject) -> str:
    record = subject.record
    versions, calibration = record.versions, record.calibration
    others = ", ".join(f"{name} {v}" for name, v in versions.items() if name != "awqscope")
    lines = [run_command(subject)]
    if subject.requantized:
        lines.append("awqscope requantize RUN --recipe RECIPE --out CHECKPOINT")
        if subject.weights is not None:
            lines[-1] += f" --weights {_plain(shlex.quote(_name_source(subject)))}"
        if subject.proof is not None:
            lines[-1] += " --prove"
        if subject.fmt != "compressed-tensors":
            lines[-1] += f" --format {subject.fmt}"
        if subject.dtype is not None:
            lines[-1] += f" --dtype {subject.dtype}"
    commands = "\n".join(lines)
    flagged = () if record.headline is None else record.headline.flagged
    why = ""
    if flagged and not subject.requantized:
        blocks = join_words([str(block) for block in flagged])
        bits, plural = record.spec.bits, "s" * (len(flagged) > 1)
        why = f" Flagged as damaged by {bits} bits: block{plural} {blocks}."
    return (
        f"By awqscope {_plain(versions.get('awqscope', ''))} ({_plain(others)}), calibrated on "
        f"`{_plain(name_text(calibration.text))}`, {calibration.windows} windows of "
        f"{calibration.seq_len} tokens (text SHA-256 `{calibration.text_sha256[:16]}…`), "
        f"seed {record.spec.seed}.{why}\n\n```\n{commands}\n```"
    )


def run_command(subject: CardSubject) -> str:
    """The `awqscope run` that made it, defaults and directories left out."""
    spec = subject.record.spec
    model = _name_source(subject) if subject.weights is None else name_text(subject.record.model)
    words = ["awqscope", "run", model]
    for name, option in list_options(RunSpec).items():
        value = getattr(spec, name)
        if option.is_argument or name in LEFT_OUT or value == option.default:
            continue
        for text in option.list_given(value):
            words += [option.flag] if text is None else [option.flag, name_text(text)]
    return _plain(shlex.join(words))
