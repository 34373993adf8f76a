"""A run of a tiny model that has been searched and, by its record, swept, made in a second; and a
model that one of two texts puts something into that the other does not."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from awqscope.diagnose.inputs.load import describe, load_inputs
from awqscope.diagnose.runs.directory import RunDirectory
from awqscope.diagnose.runs.spec import RunSpec
from awqscope.diagnose.studies.calibration.answer import (
    Agreement,
    Beside,
    Calibrated,
    CalibrationAdvice,
    Cell,
    Column,
    DomainAdvice,
    GroupAgreement,
    Role,
    StabilityAdvice,
    WindowsAdvice,
)
from awqscope.mixedprec.awq.search import search_model
from tests.mixedprec.foreign.test_candidate import change_tensors, copy_model

SIZES: dict[str, Any] = {
    "group_size": 32,
    "seq_len": 48,
    "windows": 6,
    "calib_windows": 8,
    "calib_seq_len": 32,
    "search": "fast",
}
DONE = {"state": "done", "seconds": 2.0}
# The channel that digits alone are loud in.
LOUD, LOUDNESS = 17, 60.0


def write_calibrated_run(path: Path, model: Path, calib: Path, valid: Any, **changes: Any) -> Path:
    """A run as it is after its sweep, with its searches."""
    valid = str(valid) if isinstance(valid, Path) else tuple(map(str, valid))
    spec = RunSpec(model=str(model), calib=str(calib), valid=valid, **{**SIZES, **changes})
    inputs, run = load_inputs(spec), RunDirectory(path)
    run.create(describe(spec, inputs).changed(stages={"search": DONE, "sweep": DONE}))
    search_model(
        inputs.model,
        inputs.search_windows,
        list(spec.schemes.values()),
        run.searches,
        exact=spec.is_exact,
    )
    return path


def write_domains(folder: Path) -> tuple[Path, Path]:
    """Two texts with hardly a token in common: words, and numbers."""
    words, numbers = folder / "words.txt", folder / "numbers.txt"
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    nouns = ("block", "stream", "window", "token", "recipe", "server", "measure", "balance")
    lines = (" ".join(nouns[draw(len(nouns))] for _ in range(9)) for _ in range(400))
    words.write_text("\n".join(lines), encoding="utf-8")
    lines = ("".join(str(draw(10)) for _ in range(40)) for _ in range(200))
    numbers.write_text("\n".join(lines), encoding="utf-8")
    return words, numbers


def make_loud(source: Path, folder: Path) -> Path:
    """The same model, whose stream has one large channel wherever a token of digits is."""
    path = copy_model(source, folder)
    tokenizer = AutoTokenizer.from_pretrained(path)
    digits = [n for n in range(len(tokenizer)) if tokenizer.decode([n]).strip().isdigit()]

    def raise_channel(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if "embed_tokens" in name:
            tensor[digits, LOUD] = LOUDNESS * tensor.float().std().half()
        return tensor

    change_tensors(path, raise_channel)
    return path


def make_advice(**changes: Any) -> CalibrationAdvice:
    """An answer with every part, of made-up numbers."""
    texts = ("texts/wiki.txt", "texts/code.txt")

    def calibrated(name: str, role: Role, windows: int, gain: float, *of: str) -> Calibrated:
        kl = (0.5 * (1 - gain), 0.45 * (1 - gain), 0.55 * (1 - gain))
        bounded = (gain, gain - 0.004, gain + 0.004) if gain else (0.0, 0.0, 0.0)
        return Calibrated(
            name=name,
            role=role,
            texts=of or ("texts/calib.txt",),
            windows=windows,
            of_last=windows // 2 if role == "both" else windows,
            tokens=512 * windows,
            tokens_sha256="c0ffee",
            kl=kl,
            ppl=30.0 + kl[0],
            delta_ppl=(kl[0], kl[1], kl[2]),
            gain=bounded,
            cells=tuple(Cell(text=text, kl=kl, gain=bounded) for text in texts),
        )

    choices = Agreement(
        bits=4,
        groups=(
            GroupAgreement(kind="qkv", equal=20, of=30, apart=0.02),
            GroupAgreement(kind="down", equal=6, of=30, apart=0.05),
        ),
        clips=(0.7, 0.2, 0.06, 0.04, *[0.0] * 6),
    )
    beside = {
        "kl": (0.1, 0.09, 0.11),
        "share": (0.2, 0.18, 0.22),
        "difference": (-0.01, -0.02, 0.004),
        "agreements": (choices,),
    }
    entries: dict[str, Any] = {
        "calib": "texts/calib.txt",
        "given": 128,
        "read": 16,
        "seq_len": 512,
        "run_search": "fast",
        "search": "fast",
        "fast_tokens": 8192,
        "reference_ppl": 27.5,
        "columns": tuple(
            Column(text=text, windows=8, tokens=4096, of_run=number == 0)
            for number, text in enumerate(texts)
        ),
        "calibrations": (
            calibrated("run", "run", 16, 0.0),
            calibrated("half 1", "half", 8, -0.03),
            calibrated("half 2", "half", 8, -0.04),
            calibrated("draw 1", "draw", 16, 0.006),
            calibrated("8 windows", "count", 8, -0.05),
            calibrated("32 windows", "count", 32, 0.02),
            calibrated("text 1", "text", 16, -0.2, "more/code.txt"),
            calibrated("both 1", "both", 16, 0.12, "texts/calib.txt", "more/code.txt"),
        ),
        "pairs": (
            Beside(one="half 1", other="half 2", **beside),
            Beside(one="run", other="draw 1", **beside),
        ),
        "spread": 0.006,
        "windows": WindowsAdvice(
            verdict="enough",
            windows=64,
            beside=128,
            gain=(0.003, -0.002, 0.008),
            limit=0.01,
            of_run=(0.02, 0.015, 0.025),
        ),
        "stability": StabilityAdvice(
            verdict="steady",
            equal=26,
            of=60,
            share=(0.2, 0.18, 0.22),
            difference=(-0.01, -0.02, 0.004),
            limit=0.05,
        ),
        "domains": (
            DomainAdvice(
                calib="more/code.txt",
                valid="texts/code.txt",
                verdict="uncovered",
                gain=(0.12, 0.1, 0.14),
                limit=0.02,
                elsewhere=(-0.01, -0.015, -0.005),
            ),
        ),
    }
    return CalibrationAdvice(**{**entries, **changes})
