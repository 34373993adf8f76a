"""Where a run's numbers are from: its model, texts, versions and files, as facts."""

from awqscope.app.words.compared.comparison import list_facts
from awqscope.app.words.noise import write_floor
from awqscope.app.words.texts import write_sample
from awqscope.app.words.verdict import write_range
from awqscope.diagnose.entries.headline import Headline
from awqscope.diagnose.entries.served_type import write_measured_type
from awqscope.diagnose.entries.uncalibrated import write_uncalibrated
from awqscope.diagnose.runs.record import AnyRecord, Comparison, Record
from awqscope.mixedprec.checkpoints.serving import write_serving
from awqscope.mixedprec.models.weight_files import write_aside
from awqscope.mixedprec.words import write_share


def list_hashes(record: AnyRecord) -> dict[str, str]:
    """SHA-256 of the model's files by name, and of a candidate's."""
    theirs = record.candidate.hashes if isinstance(record, Comparison) else {}
    return {**record.source.hashes, **{f"candidate: {n}": value for n, value in theirs.items()}}


def _list_quantization(record: Record) -> dict[str, str]:
    """What a run quantized with: label -> text."""
    calibration, spec = record.calibration, record.spec
    scheme = "symmetric" if spec.symmetric else "asymmetric"
    group = spec.low.write_groups()
    return {
        "Calibrated on": (
            f"{calibration.text}, {calibration.windows} windows of "
            f"{calibration.seq_len} tokens  sha256 {calibration.text_sha256[:16]}…"
        ),
        "Quantization": f"{spec.bits} bits {scheme}, {group}; promoted to {spec.rescue_bits}",
    }


def _name_range(record: AnyRecord) -> dict[str, str]:
    """How large activations get, and what was measured in the served type, where it is known."""
    largest, headline = write_range(record), record.headline
    facts = {"Largest activation": largest} if largest else {}
    if isinstance(headline, Headline) and headline.served and headline.served.finite:
        facts["Served type"] = write_measured_type(headline.served)
    return facts


def _name_made(record: AnyRecord) -> dict[str, str]:
    """Of a run, its experts that saw too little, how large activations get, and what servers make
    of its checkpoint; a comparison's own facts say the last of its candidate."""
    facts: dict[str, str] = {}
    if isinstance(record, Record):
        uncalibrated = write_uncalibrated(record.uncalibrated)
        facts |= {"Experts": uncalibrated} if uncalibrated else {}
    facts |= _name_range(record)
    if isinstance(record, Record) and record.serving is not None:
        facts["Checkpoint"] = write_serving(record.serving.to_json())
    return facts


def provenance_facts(record: AnyRecord) -> dict[str, str]:
    """How perplexity was defined, on what, with what, by name."""
    definition, source = record.ppl_definition, record.source
    aside = write_aside(source.left_aside)
    control = 0 if record.sweep is None else record.sweep.control_kl
    sample = write_sample(record)
    floor = write_floor(record)
    return {
        "Perplexity": f"{definition.sentence} ({definition.scored_tokens:,} tokens scored)",
        "Measured on": f"{definition.text}  sha256 {definition.text_sha256[:16]}…",
        **(list_facts(record) if isinstance(record, Comparison) else _list_quantization(record)),
        "Model": (
            f"{source.architecture}, {source.blocks} blocks, "
            f"{source.parameters:,} parameters in {source.dtype}"
        ),
        **({"Model's files": aside} if aside else {}),
        **_name_made(record),
        "Versions": ", ".join(f"{name} {v}" for name, v in record.versions.items()),
        "Control": f"a block swapped with itself: KL {control}",
        **({"Blocks": sample} if sample else {}),
        **({"Noise floor": floor} if floor else {}),
        **_name_check(record),
    }


def _name_check(record: AnyRecord) -> dict[str, str]:
    """How exact the KL of blocks is, where not all of their logits were made."""
    sweep = record.sweep
    if sweep is None or sweep.head_error is None:
        return {}
    return {
        "Logits of blocks": (
            "made where they count and estimated elsewhere; where all were made too "
            f"({sweep.head_positions:,} positions), the largest error of a block's KL was "
            f"{write_share(sweep.head_error, '.3%')}"
        )
    }
