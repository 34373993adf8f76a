"""What is said of a comparison: its candidate's name and format, and what no comparison has."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from awqscope.diagnose.runs.directory import is_comparison
from awqscope.mixedprec.checkpoints.padding import write_padding
from awqscope.mixedprec.checkpoints.serving import write_serving
from awqscope.mixedprec.models.weight_files import write_aside
from awqscope.mixedprec.scheme import FP16_BITS

FORMATS = {"awq": "AWQ", "gptq": "GPTQ", "compressed-tensors": "compressed-tensors"}
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

Row = Mapping[str, Any]


def name_uniform(record: Mapping[str, Any]) -> str:
    """What the uniform model is: "4-bit AWQ", or a candidate's widths and format."""
    if not is_comparison(record):
        return f"{record['spec']['bits']}-bit AWQ"
    candidate = record["candidate"]
    if candidate["format"] not in FORMATS:
        return "the candidate"
    return f"{name_widths(candidate['bits'])} {FORMATS[candidate['format']]}"


def name_briefly(record: Mapping[str, Any]) -> str:
    """What the uniform model is, for a heading: "4-bit", or "candidate"."""
    return "candidate" if is_comparison(record) else f"{record['spec']['bits']}-bit"


def name_widths(bits: Mapping[str, int]) -> str:
    """ "4-bit" or "4/8/16-bit", of the linears at each width."""
    return "/".join(sorted(bits, key=int)) + "-bit"


def name_candidate(record: Mapping[str, Any]) -> str:
    """The candidate by the end of its path or its hub id, and what it is: "us/m (4-bit GPTQ)"."""
    path, kind = record["candidate"]["path"], name_uniform(record)
    name = "/".join(PurePath(path).parts[-2:])
    return f"{name} (not quantized)" if kind == "the candidate" else f"{name} ({kind})"


def write_note(record: Mapping[str, Any]) -> str:
    """What every page of a comparison must say, for the words it shares with a run."""
    who = name_candidate(record)
    return f"A comparison: “uniform” and “quantized” stand for the candidate, {who}."


def write_places(places: Sequence[Row]) -> str:
    """What differs outside the blocks, in a sentence; empty where nothing does."""
    if not places:
        return ""
    said = " and ".join(f"{row['place']} (KL {row['kl']:.4g} alone)" for row in places)
    return f"Outside the blocks its {said} {'differ' if len(places) > 1 else 'differs'} too."


def list_facts(record: Mapping[str, Any]) -> dict[str, str]:
    """The candidate's provenance: label -> text."""
    candidate = record["candidate"]
    widths = ", ".join(
        f"{count} linears at {bits} bits" if int(bits) < FP16_BITS else f"{count} not quantized"
        for bits, count in candidate["bits"].items()
    )
    has = candidate["tokenizer"]
    serving = record.get("serving", {"notes": []})
    aside = write_aside(candidate.get("left_aside", ()))
    padding = candidate.get("padding", 0)
    return {
        "Candidate": f"{candidate['path']}: {FORMATS.get(candidate['format'], 'plain')}, {widths}",
        "Tokenizer": (
            "the same in both" if has else "the candidate has none: the reference's was used"
        ),
        **({"Candidate's files": aside} if aside else {}),
        **({"Vocabulary": write_padding(padding)} if padding else {}),
        "Served": write_serving(serving),
    }
