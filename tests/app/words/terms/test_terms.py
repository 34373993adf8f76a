"""The terms: one source for guide, command line and pages, and where a text uses them."""

import pytest
from typer.testing import CliRunner

from awqscope.app.cli import app
from awqscope.app.words.terms.find import Spot, list_terms, split_terms
from awqscope.app.words.terms.guide import find_term, write_guide
from awqscope.app.words.terms.table import TERMS
from awqscope.mixedprec.errors import InputError
from tests.help.root import ROOT

GUIDE = ROOT / "examples" / "guides" / "glossary.md"


def found(text: str, told: set[str] | None = None) -> list[tuple[str, str]]:
    pieces = split_terms(text, set() if told is None else told)
    assert "".join(each.word if isinstance(each, Spot) else each for each in pieces) == text
    return [(each.word, each.term.name) for each in pieces if isinstance(each, Spot)]


def test_the_guide_is_the_table() -> None:
    """Made by `awqscope terms --markdown > examples/guides/glossary.md`."""
    assert GUIDE.read_text(encoding="utf-8") == write_guide()
    assert CliRunner().invoke(app, ["terms", "--markdown"]).stdout == write_guide()


def test_every_term_has_one_meaning() -> None:
    names = [name for term in TERMS for name in term.name.split(", ")]
    spellings = [spelling for term in TERMS for spelling in term.spellings]
    assert len(set(names)) == len(names) and len(set(spellings)) == len(spellings)
    for term in TERMS:
        assert term.meaning.endswith(".") and "  " not in term.meaning
        assert not set("*`") & set(term.plain)


def test_terms_are_found_once_and_by_the_longest_spelling() -> None:
    told: set[str] = set()
    assert found("PPL ratio, and PPL", told) == [
        ("PPL ratio", "PPL ratio"),
        ("PPL", "perplexity, PPL"),
    ]
    assert found("Perplexity of blocks", told) == [("blocks", "block")]
    assert found("Blocks, PPL ratio", told) == []


@pytest.mark.parametrize("text", ["us/mixed", "unblocked", "a kl b", "5.units", "mixed-up", ""])
def test_what_only_looks_like_a_term_is_none(text: str) -> None:
    assert found(text) == []


def test_terms_are_listed_in_the_glossary_s_order() -> None:
    listed = [term.name for term in list_terms(["KL alone", "units", "KL"])]
    assert listed == ["unit", "KL", "isolated"]


@pytest.mark.parametrize("word", ["KL", "kl", "blocks", "spike", "stands out", "ppl"])
def test_a_term_is_found_by_any_of_its_names(word: str) -> None:
    assert find_term(word).meaning


def test_the_command_says_what_was_asked_for() -> None:
    runner = CliRunner()
    said = runner.invoke(app, ["terms", "restored", "KL"]).stdout
    assert said.startswith("restored: every block but this one") and "\nKL: KL(reference" in said
    assert len(runner.invoke(app, ["terms"]).stdout) > len(said)
    with pytest.raises(InputError, match="did you mean restored"):
        find_term("restord")
