"""What reports/README.md says of the answer, against the models that hold it, entry by entry."""

import re

from awqscope.diagnose.studies.alternatives.answer import Alternative, Alternatives, ByWindow
from tests.help.alternatives import make_usual
from tests.help.root import ROOT

README = (ROOT / "reports" / "README.md").read_text(encoding="utf-8")


def test_every_entry_is_described() -> None:
    section = README.partition("\n### studies/alternatives.json\n")[2].partition("\n##")[0]
    whole, _, row = section.partition("\n| entry of an alternative ")
    for part, text in ((Alternatives, whole), (Alternative, row)):
        cells = re.findall(r"^\| (`.*?) \| ", text, re.MULTILINE)
        named = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
        assert sorted(named) == sorted(part.model_fields)
    assert all(f"`{name}`" in row for name in ByWindow.model_fields)


def test_an_answer_comes_back_from_its_file() -> None:
    found = make_usual()
    assert Alternatives.model_validate(found.to_json()) == found
    assert [row.standing for row in found.rows] == [-1, -1, -1, 0, 0, 1, 1, 1]
