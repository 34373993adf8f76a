"""What is said of a comparison: its candidate's name and format, and what no comparison has."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from awqscope.diagnose.entries.source import Place
from awqscope.diagnose.runs.record import CANDIDATE, MIXED, UNIFORM, AnyRecord, Comparison
from awqscope.mixedprec.checkpoints.serving import write_serving
from awqscope.mixedprec.foreign.activations import WEIGHTS_ALONE
from awqscope.mixedprec.foreign.padding import write_padding
from awqscope.mixedprec.models.weight_files import write_aside
from awqscope.mixedprec.scheme import FP16_BITS

FORMATS = {
    "awq": "AWQ",
    "gptq": "GPTQ",
    "auto-round": "AutoRound",
    "compressed-tensors": "compressed-tensors",
    "gguf": "GGUF",
    "modelopt": "ModelOpt",
    "quark": "Quark",
    "bitsandbytes": "bitsandbytes",
    "mlx": "MLX",
    "hqq": "HQQ",
    "torchao": "torchao",
}
NO_UNITS = "Units have no KL of their own here: the candidate's blocks are swapped whole."
ABOUT_PLACES = (
    "The candidate's are not the reference's; “up to here” above begins with its embeddings, and "
    "only the whole candidate has its head."
)
NO_SEARCHES = (
    "A prompt is explained by quantizing blocks alone and promoting units, which takes searches: "
    "this checkpoint was made elsewhere, without them. awqscope run on the reference makes them."
)
NO_RECIPE = (
    "This checkpoint was made elsewhere, so there is nothing to choose widths from: awqscope run "
    "on the reference searches, and repairs what stands out."
)


def name_kind(record: AnyRecord) -> str:
    """What the quantized model is: "4-bit AWQ", or a candidate's widths and format."""
    if not isinstance(record, Comparison):
        return f"{record.spec.bits}-bit AWQ"
    candidate = record.candidate
    if candidate.format not in FORMATS:
        return "the candidate"
    return name_packed(candidate.format, candidate.bits)


def name_packed(method: str, bits: Mapping[str, int]) -> str:
    """A checkpoint's widths and format: "4/16-bit GPTQ"."""
    return f"{name_widths(bits)} {FORMATS.get(method, method)}"


def name_briefly(record: AnyRecord) -> str:
    """What the quantized model is, for a heading: "4-bit", or "candidate"."""
    return "candidate" if isinstance(record, Comparison) else f"{record.spec.bits}-bit"


def name_model(model: str, record: AnyRecord) -> str:
    """A model of a run or a comparison, in a sentence: "the uniform model", "the candidate"."""
    return "the candidate" if isinstance(record, Comparison) else f"the {model} model"


def name_widths(bits: Mapping[str, int]) -> str:
    """ "4-bit" or "4/8/16-bit", of the linears at each width."""
    return "/".join(sorted(bits, key=int)) + "-bit"


def label_models(record: AnyRecord) -> dict[str, str]:
    """The models that a run's tables tell apart, as headings and legends call them: a comparison's
    have the candidate where a run's have the uniform model."""
    return {
        "reference": "16-bit",
        UNIFORM: CANDIDATE if isinstance(record, Comparison) else UNIFORM,
        MIXED: MIXED,
    }


def name_candidate(record: Comparison) -> str:
    """The candidate by the end of its path or its hub id, and what it is: "us/m (4-bit GPTQ)"."""
    kind, name = name_kind(record), "/".join(PurePath(record.candidate.path).parts[-2:])
    return f"{name} (not quantized)" if kind == "the candidate" else f"{name} ({kind})"


def write_note(record: Comparison) -> str:
    """What a page is of that belongs to a comparison."""
    return f"A comparison: the candidate is {name_candidate(record)}."


def write_places(places: Sequence[Place]) -> str:
    """What differs outside the blocks, in a sentence; empty where nothing does."""
    if not places:
        return ""
    said = " and ".join(f"{each.place} (KL {each.kl:.4g} alone)" for each in places)
    return f"Outside the blocks its {said} {'differ' if len(places) > 1 else 'differs'} too."


def list_facts(record: Comparison) -> dict[str, str]:
    """The candidate's provenance: label -> text."""
    candidate = record.candidate
    widths = ", ".join(
        f"{count} linears at {bits} bits" if int(bits) < FP16_BITS else f"{count} not quantized"
        for bits, count in candidate.bits.items()
    )
    has, padding = candidate.tokenizer, candidate.padding
    serving = {"notes": []} if record.serving is None else record.serving.to_json()
    aside = write_aside(candidate.left_aside)
    return {
        "Candidate": f"{candidate.path}: {FORMATS.get(candidate.format, 'plain')}, {widths}",
        "Tokenizer": (
            "the same in both" if has else "the candidate has none: the reference's was used"
        ),
        **({"Candidate's files": aside} if aside else {}),
        **({"Activations": WEIGHTS_ALONE} if candidate.weights_alone else {}),
        **({"Vocabulary": write_padding(padding)} if padding else {}),
        "Served": write_serving(serving),
    }
