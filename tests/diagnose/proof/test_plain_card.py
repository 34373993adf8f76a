"""The card of a plain model, as the hub reads it."""

from huggingface_hub import ModelCard

from awqscope.diagnose.proof.plain_card import Dequantized, write_plain_card

MADE = Dequantized(
    source="/home/me/private/tiny-gptq",
    hub_id=None,
    architecture="llama",
    kind="4/8-bit GPTQ",
    dtype="float16",
    bytes=2_000_000,
    parameters=1_000_000,
    version="0.1",
)
THEIRS = """---
license: apache-2.0
base_model: org/tiny
base_model_relation: quantized
tags: [chat, gptq, 4-bit, int4]
model-index: [{name: tiny}]
---
# Tiny in GPTQ
Fast.
"""


def test_a_card_says_what_it_is_and_keeps_the_rest() -> None:
    card = ModelCard(write_plain_card(MADE, THEIRS))
    assert card.data.to_dict() == {
        "license": "apache-2.0",
        "base_model": "org/tiny",
        "library_name": "transformers",
        "tags": ["chat", "dequantized", "awqscope"],
    }
    text = " ".join(card.text.split())
    assert "`tiny-gptq` (llama, 1,000,000 parameters; 4/8-bit GPTQ), each written out" in text
    assert "in float16. Its size is a plain model's, 2.00 MB. Its quality is the quantized" in text
    assert "private" not in text
    assert text.endswith("# Tiny in GPTQ Fast.")


def test_a_card_of_ours_is_replaced() -> None:
    once = write_plain_card(MADE, THEIRS)
    assert write_plain_card(MADE, once) == once
    assert "# Tiny" not in write_plain_card(MADE, "")


def test_a_checkpoint_on_the_hub_is_its_base() -> None:
    made = Dequantized(**{**vars(MADE), "hub_id": "org/tiny-gptq"})
    card = ModelCard(write_plain_card(made, THEIRS))
    assert card.data.base_model == "org/tiny-gptq"
    assert "[org/tiny-gptq](https://huggingface.co/org/tiny-gptq)" in card.text


def test_what_was_only_fused_is_not_called_quantized() -> None:
    made = Dequantized(**{**vars(MADE), "quantized": False})
    text = write_plain_card(made, "")
    assert "# tiny-gptq, unfused" in text and "Nothing was quantized." in text
    assert "quality" not in text
