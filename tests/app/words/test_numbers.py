"""Words for a reader: names stay as they are."""

import pytest

from awqscope.app.words.numbers import begin_sentence, tell_apart


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


@pytest.mark.parametrize(
    ("names", "ends"),
    [
        (["/srv/models/a", "/srv/models/b"], ["a", "b"]),
        (["/srv/x/model", "/srv/y/model", "/srv/z"], ["x/model", "y/model", "z"]),
        (["org/m", "/data/m"], ["org/m", "data/m"]),
        (["/m", "m"], ["/m", "m"]),
        (["/srv/models/a"], ["a"]),
        (["", "/"], ["", "/"]),
    ],
)
def test_models_are_known_by_what_differs(names: list[str], ends: list[str]) -> None:
    assert list(tell_apart(names).values()) == ends
