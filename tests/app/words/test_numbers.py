"""Words for a reader: names stay as they are."""

import pytest

from awqscope.app.words.numbers import begin_sentence


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("there is no file x.txt", "There is no file x.txt"),
        ("give at least 2", "Give at least 2"),
        ("the disk is full", "The disk is full"),
        ("examples/demo is neither", "examples/demo is neither"),
        ("wikitext2:test cannot be loaded", "wikitext2:test cannot be loaded"),
        ("gpt2 has no such unit", "gpt2 has no such unit"),
        ("the-model is no run", "the-model is no run"),
        ("nothing", "nothing"),
        ("", ""),
    ],
)
def test_a_sentence_begins_with_a_capital_but_a_name_does_not(said: str, read: str) -> None:
    assert begin_sentence(said) == read
