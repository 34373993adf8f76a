"""The fields of the forms: what each is called, what it means, and which belong together.

Every field has a name, by which the page reads what it shows (assets/forms.js).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import html

from awqscope.app.dashboard.jobs.requests import (
    DECIMALS,
    FLAGS,
    LINES,
    TEXTS,
    CompareRequest,
    Request,
    RunRequest,
    write_field,
)
from awqscope.mixedprec.models.dtypes import AUTO, LARGEST
from awqscope.mixedprec.scheme import BITS, GROUP_SIZES

Groups = Sequence[tuple[str, Sequence[str]]]

FLAGGING = ("What is flagged", ("z", "ratio", "delta_ppl", "top_k"))
CARRYING_OUT = ("How it is carried out", ("device", "workers", "max_memory", "seed"))
# By kind of request: what is shown at once, and what is folded away.
SHOWN: Mapping[type[Request], Groups] = {
    RunRequest: (
        ("Model", ("model", "name")),
        ("Texts", ("calib", "valid", "windows", "seq_len")),
        ("Quantization", ("bits", "rescue_bits", "group_size", "symmetric")),
    ),
    CompareRequest: (
        ("Models", ("reference", "candidate", "name")),
        ("Texts", ("valid", "windows", "seq_len")),
    ),
}
FOLDED: Mapping[type[Request], Groups] = {
    RunRequest: (
        ("Calibration", ("calib_windows", "calib_seq_len")),
        FLAGGING,
        ("What is repaired", ("whole_blocks", "keep_fp16", "verify_units", "dtype")),
        CARRYING_OUT,
    ),
    CompareRequest: (FLAGGING, CARRYING_OUT),
}
HINTS = {
    "Texts": "Each is wikitext2[:SPLIT], a .txt, .jsonl or .parquet file on this machine, or "
    "hub:NAME[:CONFIG]:SPLIT:COLUMN.",
}
# field -> its label and what it means.
WORDS = {
    "model": ("Model", "A directory on this machine, or an id on the Hugging Face hub."),
    "reference": ("Reference", "The 16-bit model: a directory, or an id on the hub."),
    "candidate": ("Candidate", "The checkpoint made from it: a directory, or an id on the hub."),
    "name": ("Name of the run", "Left empty, it is made from the model's."),
    "calib": ("Calibration text", "What AWQ chooses its scales on."),
    "valid": (
        "Validation texts",
        "What perplexity and KL are measured on; one a line, each is told apart.",
    ),
    "windows": ("Windows", "Spread over each validation text. Left empty: all of it."),
    "seq_len": ("Tokens in a window", "Left empty: 2048, or the model's maximum."),
    "bits": ("Bits", "Of every unit that is not promoted."),
    "rescue_bits": ("Bits of promoted units", "Symmetric. Checkpoints are written for 4 and 8."),
    "group_size": ("Group size", "Input channels that share a scale."),
    "symmetric": ("Symmetric", "No zero points at the low width."),
    "calib_windows": ("Calibration windows", "Spread over the calibration text."),
    "calib_seq_len": ("Tokens in a calibration window", "Cut to the model's maximum."),
    "z": ("Robust z-score", "A block is flagged from this on, by log KL …"),
    "ratio": ("Times the median", "… if it also is so many times the other blocks' KL."),
    "delta_ppl": ("ΔPPL above", "Flags any block whose ΔPPL alone is above this."),
    "top_k": ("Worst blocks", "Flags so many, instead of asking which stand out."),
    "whole_blocks": ("Promote whole blocks", "Not the fewest of their units that repair them."),
    "keep_fp16": ("Units kept at 16 bits", "Such as 3.down 5.o, with blanks between."),
    "verify_units": ("Units measured exactly", "To check the estimates of the others."),
    "dtype": ("Type of the checkpoint", "What it stores and is served in; bfloat16 passes 65,504."),
    "device": ("Device", "auto, cpu, cuda (all there are) or cuda:N[,cuda:M]."),
    "workers": ("Workers", "Processes that share the work on the CPU. Left empty: one."),
    "seed": ("Seed", "Of the bootstrap and of sampled tokens."),
    "max_memory": (
        "Memory",
        "What a run may hold, of the host and of a device; streams that do not fit go to files in "
        "the run directory. Workers share it.",
    ),
}
LEAST = {"windows": 2, "seq_len": 2, "calib_windows": 1, "calib_seq_len": 1, "workers": 1}
WIDTHS = ("bits", "rescue_bits")
CHOICES: Mapping[str, Sequence[int | str]] = {
    **{key: list(BITS) for key in WIDTHS},
    "group_size": GROUP_SIZES,
    "dtype": (AUTO, *LARGEST),
}
NEEDED = ("model", "reference", "candidate")


def form_field(key: str, value: Any, kept: str) -> Any:
    """The input of a field, holding `value`; what was typed is there again after a way back to the
    form that is `kept` under the same name."""
    label, description = WORDS[key]
    words: dict[str, Any] = {"label": label, "description": description}
    words |= {"persistence": kept, "persistence_type": "session"}
    if key in FLAGS:
        return dmc.Switch(id={"type": "new-flag", "field": key}, checked=value, **words)
    words |= {"id": {"type": "new", "field": key}, "name": key}
    if key in CHOICES:
        return dmc.Select(
            data=[{"value": str(n), "label": choice_label(key, n)} for n in CHOICES[key]],
            value=str(value),
            allowDeselect=False,
            **words,
        )
    if key in LINES:
        return dmc.Textarea(
            value=write_field(value), autosize=True, minRows=1, spellCheck=False, **words
        )
    if key in TEXTS or isinstance(value, tuple):
        # A model's path is no sentence.
        return dmc.TextInput(
            value=" ".join(value) if isinstance(value, tuple) else value,
            required=key in NEEDED,
            spellCheck=False,
            autoComplete="off",
            **words,
        )
    return dmc.NumberInput(
        value=write_field(value),
        allowDecimal=key in DECIMALS,
        min=LEAST.get(key, 0),
        clampBehavior="none",
        step=0.5 if key in DECIMALS else 1,
        **words,
    )


def choice_label(key: str, value: int | str) -> str:
    """How a width, a group size or a type is called."""
    if key in WIDTHS:
        return f"{value} bits"
    names = {-1: "one group a row", AUTO: "as the model comes"}
    return names.get(value, str(value))


def field_group(title: str, keys: Sequence[str], request: Request, kept: str) -> html.Fieldset:
    """Fields that belong together."""
    fields = [form_field(key, getattr(request, key), kept) for key in keys]
    return html.Fieldset(
        [
            html.Legend(title),
            html.P(HINTS[title], className="summary") if title in HINTS else None,
            html.Div(fields, className="fields"),
        ]
    )


def list_folded(kind: type[Request]) -> set[str]:
    """The fields that are folded away."""
    return {key for _, keys in FOLDED[kind] for key in keys}


def write_names(keys: Mapping[str, str], kind: type[Request]) -> str:
    """The labels of these fields, in the form's order."""
    shown = [key for _, group in (*SHOWN[kind], *FOLDED[kind]) for key in group]
    return ", ".join(WORDS[key][0] for key in shown if key in keys)
