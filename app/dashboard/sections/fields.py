"""The fields of the forms: what each is called, what it means, and which belong together.

Every field has a name, by which the page reads what it shows (assets/forms.js).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import html

from awqscope.app.dashboard.jobs.requests import LINES, Request, list_fields, write_field
from awqscope.diagnose.options.option import Option
from awqscope.diagnose.runs.spec import AnySpec, CompareSpec, RunSpec
from awqscope.mixedprec.models.dtypes import AUTO

Groups = Sequence[tuple[str, Sequence[str]]]

FLAGGING = ("What is flagged", ("z", "ratio", "delta_ppl", "top_k"))
REPAIRED = (
    *("whole_blocks", "target_bits", "min_recovery"),
    *("keep_fp16", "verify_units", "dtype"),
)
CARRYING_OUT = ("How it is carried out", ("device", "precision", "workers", "max_memory", "seed"))
# By what is to be started: what is shown at once, and what is folded away.
SHOWN: Mapping[type[AnySpec], Groups] = {
    RunSpec: (
        ("Model", ("model", "revision", "name")),
        ("Texts", ("calib", "valid", "windows", "seq_len")),
        ("Quantization", ("bits", "rescue_bits", "group_size", "symmetric", "search")),
    ),
    CompareSpec: (
        ("Models", ("reference", "candidate", "name")),
        ("Texts", ("valid", "windows", "seq_len")),
    ),
}
SWEPT = ("How blocks are measured", ("sweep", "sweep_windows"))
FOLDED: Mapping[type[AnySpec], Groups] = {
    RunSpec: (
        SWEPT,
        ("Calibration", ("calib_windows", "calib_seq_len")),
        FLAGGING,
        ("What is repaired", REPAIRED),
        CARRYING_OUT,
    ),
    CompareSpec: (SWEPT, FLAGGING, CARRYING_OUT),
}
HINTS = {
    "Texts": "Each is wikitext2[:SPLIT], a .txt, .jsonl or .parquet file on this machine, or "
    "hub:NAME[:CONFIG]:SPLIT:COLUMN.",
}


def form_field(option: Option, value: Any, kept: str) -> Any:
    """The input of an option, holding `value`; what was typed is there again after a way back to
    the form that is `kept` under the same name."""
    key, kind = option.name, option.kind
    words: dict[str, Any] = {"label": option.shown.label, "description": option.hint}
    words |= {"persistence": kept, "persistence_type": "session"}
    if kind is bool:
        return dmc.Switch(id={"type": "new-flag", "field": key}, checked=value, **words)
    words |= {"id": {"type": "new", "field": key}, "name": key}
    shown = write_field(option, value)
    if option.shown.choices:
        return dmc.Select(
            data=[
                {"value": str(n), "label": choice_label(option, n)} for n in option.shown.choices
            ],
            value=str(shown),
            allowDeselect=option.default is None,
            **words,
        )
    if key in LINES:
        return dmc.Textarea(value=shown, autosize=True, minRows=1, spellCheck=False, **words)
    if kind in (str, tuple) or option.is_amount:
        # A model's path is no sentence.
        return dmc.TextInput(
            value=shown,
            required=option.is_needed,
            spellCheck=False,
            autoComplete="off",
            **words,
        )
    return dmc.NumberInput(
        value=shown,
        allowDecimal=kind is float,
        min=option.least or 0,
        clampBehavior="none",
        step=0.5 if kind is float else 1,
        **words,
    )


def choice_label(option: Option, value: int | str) -> str:
    """How a width, a group size or a type is called."""
    if option.shown.unit == "bits":
        return f"{value} bits"
    names = {-1: "one group a row", AUTO: "as the model comes"}
    return names.get(value, str(value))


def field_group(title: str, keys: Sequence[str], request: Request, kept: str) -> html.Fieldset:
    """Fields that belong together."""
    options = list_fields(request.kind)
    fields = [form_field(options[key], request.value(key), kept) for key in keys]
    return html.Fieldset(
        [
            html.Legend(title),
            html.P(HINTS[title], className="summary") if title in HINTS else None,
            html.Div(fields, className="fields"),
        ]
    )


def list_folded(kind: type[AnySpec]) -> set[str]:
    """The fields that are folded away."""
    return {key for _, keys in FOLDED[kind] for key in keys}


def write_names(keys: Mapping[str, str], kind: type[AnySpec]) -> str:
    """The labels of these fields, in the form's order."""
    shown = [key for _, group in (*SHOWN[kind], *FOLDED[kind]) for key in group]
    return ", ".join(list_fields(kind)[key].shown.label for key in shown if key in keys)
