"""The samples of the task `continuations`, which lm-eval loads from here, and how they were made:
`python -m examples.tasks.continuations` writes continuations.jsonl anew.

Each is a passage of the demo's held-out text (documentation of Python, PSF licence), the words that
follow it, and three other passages' words from the same neighbourhood, so that the subject alone
does not tell.
"""

import json
import random
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILE = HERE / "continuations.jsonl"
TEXT = HERE.parent / "demo" / "valid.txt"
SAMPLES, CHOICES = 240, 4
# Words of a passage that are read, and of its continuation.
READ, GUESSED = 24, 4
# How many passages away the other continuations are taken from, at most.
NEAR = 12


def load(**_metadata: Any) -> dict[str, Any]:
    """The task's only split, as lm-eval asks for it."""
    from datasets import Dataset

    lines = FILE.read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}


def cut_passages(text: str) -> list[tuple[str, str]]:
    """Passages of READ words with the GUESSED words that follow, none overlapping another."""
    words = text.split()
    step = READ + GUESSED
    cuts = (words[start : start + step] for start in range(0, len(words) - step, step))
    return [(" ".join(cut[:READ]), " ".join(cut[READ:])) for cut in cuts if is_prose(cut)]


def is_prose(words: list[str]) -> bool:
    """Whether nearly all of the words are words, and none is a line of a table or a signature."""
    plain = sum(word.strip(".,;:()'’\"").isalpha() for word in words)
    return plain >= 0.9 * len(words) and all(word.strip(".,").isalpha() for word in words[READ:])


def make_samples(text: str) -> list[dict[str, Any]]:
    """The samples, the same ones each time."""
    draw = random.Random(0)
    passages = cut_passages(text)
    samples = []
    for number, (context, right) in enumerate(passages):
        near = passages[max(0, number - NEAR) : number] + passages[number + 1 : number + NEAR + 1]
        others = draw.sample(sorted({words for _, words in near} - {right}), CHOICES - 1)
        place = draw.randrange(CHOICES)
        choices = [*others[:place], right, *others[place:]]
        samples.append({"context": context, "choices": choices, "right": place})
    return samples[:SAMPLES]


def main() -> None:
    """Write the file."""
    lines = [json.dumps(each, ensure_ascii=False) for each in make_samples(TEXT.read_text("utf-8"))]
    FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} samples in {FILE}")


if __name__ == "__main__":
    main()
