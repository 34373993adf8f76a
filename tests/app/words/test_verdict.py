"""The verdict's sentences, on runs at every point and of every outcome."""

from collections.abc import Sequence
from typing import Any

import pytest

from awqscope.app.words.verdict import write_changed, write_subject, write_verdict
from awqscope.diagnose.entries.source import Place
from awqscope.diagnose.runs.spec import CompareSpec
from tests.help.runs import parse_record, read_sample

UNITS = ["5.qkv", "5.o"]


def say(record: dict[str, Any], promoted: Sequence[str]) -> str:
    return write_verdict(parse_record(record), promoted)


@pytest.fixture
def record() -> dict[str, Any]:
    return read_sample()


def test_a_finished_run(record: dict[str, Any]) -> None:
    said = say(record, UNITS)
    assert "Block 5 stands out. Units 5.qkv and 5.o at 8 bits give back 94.9%" in said
    assert said.endswith("is what the recipe says.")


@pytest.mark.parametrize(
    ("uniform", "mixed", "said"),
    [
        (0.6734, 0.9184, "changed in 33 of 100 places; now in 8."),
        (0.7, None, "changed in 30 of 100 places."),
        (0.9, 0.996, "changed in 100 of 1,000 places; now in 4."),
        (0.99, 0.9999, "changed in 10 of 1,000 places; now in fewer than 1."),
        (0.999, 1.0, "changed in 1 of 1,000 places; now in none."),
    ],
)
def test_how_often_the_likeliest_token_changed(
    record: dict[str, Any], uniform: float, mixed: float | None, said: str
) -> None:
    record["headline"]["top1_agreement"] = {"uniform": uniform, "mixed": mixed}
    assert write_changed(parse_record(record)) == f"The likeliest token {said}"
    assert write_changed(parse_record(record)) in say(record, UNITS)


def test_what_a_run_is_of(record: dict[str, Any]) -> None:
    assert write_subject(parse_record(record)) == (
        "examples/demo: llama, 8 blocks, 6.56 million parameters; measured on 10,200 tokens of "
        "examples/demo/valid.txt"
    )


def test_a_repair_not_chosen_yet(record: dict[str, Any]) -> None:
    record["headline"] |= {"recovered": None, "proved": None}
    assert "Block 5 stands out. The repair is not chosen yet." in write_verdict(
        parse_record(record), []
    )


def test_blocks_that_were_asked_for_do_not_stand_out(record: dict[str, Any]) -> None:
    record["spec"]["top_k"] = 1
    assert "Block 5 is flagged." in say(record, UNITS)


def test_a_model_that_loses_nothing(record: dict[str, Any]) -> None:
    record["headline"]["flagged"] = []
    record["headline"]["kl"]["uniform"] = 0.0
    assert "changes nothing" in say(record, [])


def test_a_checkpoint_that_no_server_would_load(record: dict[str, Any]) -> None:
    record["headline"] |= {"recovered": None, "predicted_recovered": 0.9, "proved": None}
    record["stages"]["requantize"] = {"state": "skipped", "reason": "3 bits"}
    assert "No checkpoint was written: 3 bits." in say(record, UNITS)


def test_a_recipe_for_a_budget(record: dict[str, Any]) -> None:
    record["spec"]["target_bits"] = 4.5
    assert "Block 5 stands out. 2 units at 8 bits, chosen for 4.5 bits a weight, give back" in say(
        record, UNITS
    )
    record["spec"] |= {"target_bits": None, "min_recovery": 0.5}
    record["headline"]["flagged"] = []
    said = say(record, UNITS[:1])
    assert "No block stands out" in said
    assert "1 unit at 8 bits, chosen for a recovery of 50%, gives back 94.9%" in said


def test_a_failed_run_without_a_reason(record: dict[str, Any]) -> None:
    record |= {"state": "failed", "error": None}
    assert "no reason was recorded" in say(record, [])


def test_a_comparison_speaks_of_its_candidate(record: dict[str, Any]) -> None:
    record |= {
        "kind": "compare",
        "spec": CompareSpec(reference="m", candidate="c", valid="v").to_json(),
        "candidate": {
            "path": "/models/us/ours",
            "format": "gptq",
            "bits": {"8": 2, "4": 54},
            "tokenizer": True,
            "hashes": {},
        },
    }
    said = say(record, [])
    assert said.startswith("us/ours (4/8-bit GPTQ) costs +8.386 perplexity against its reference")
    assert said.endswith("Block 5 stands out.")
    numbers = {name: 0.0 for name in Place.model_fields if name != "place"}
    embeddings, head = {"place": "embeddings", "kl": 0.01}, {"place": "head", "kl": 2e-7}
    record["places"] = [numbers | embeddings, numbers | head]
    record["candidate"] |= {"format": "plain", "bits": {"16": 56}}
    said = say(record, [])
    assert said.startswith("us/ours (not quantized) costs")
    assert said.endswith("embeddings (KL 0.01 alone) and head (KL 2e-07 alone) differ too.")


def test_a_small_kl_is_not_written_as_none(record: dict[str, Any]) -> None:
    record["headline"]["kl"]["uniform"] = 3.14e-6
    assert "a KL of 3.1e-06 nats" in say(record, [])
