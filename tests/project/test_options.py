"""Every option stands once and shows everywhere: in help, form, card and reports/README.md; and
wherever it is given it has the same bounds, in the same words."""

import functools
import json
import re
from typing import Any

import pytest
from typer.testing import CliRunner

from awqscope.app import cli
from awqscope.app.dashboard.jobs.request_checks import check_request
from awqscope.app.dashboard.jobs.requests import LEFT_OUT, list_fields, read_request
from awqscope.app.dashboard.pages.new import form
from awqscope.app.words.numbers import begin_sentence
from awqscope.diagnose.options.amounts import write_bytes
from awqscope.diagnose.options.execution import Execution
from awqscope.diagnose.options.option import ORDER, Option, list_options
from awqscope.diagnose.proof import card
from awqscope.diagnose.runs.spec import SPECS, AnySpec, CompareSpec, RunSpec
from awqscope.mixedprec.recipes.recipe import Recipe
from tests.help.requested import request_for
from tests.help.root import ROOT
from tests.help.runs import make_record
from tests.project.test_readme import read_rows

RUN, COMPARE = list_options(RunSpec, Execution), list_options(CompareSpec, Execution)
ALL = [
    pytest.param(kind, option, id=f"{kind.COMMAND} {name}")
    for kind in SPECS.values()
    for name, option in list_options(kind, Execution).items()
]
README = (ROOT / "reports" / "README.md").read_text(encoding="utf-8")
# A value that is not an option's default, by the type of its values.
OTHERS: dict[type, Any] = {str: "other", tuple: ("one", "two"), bool: True, int: 7, float: 7.5}


def ask(*words: str) -> Any:
    return CliRunner().invoke(cli.app, list(words), env={"COLUMNS": "10000"})


@functools.cache
def read_help(kind: type[AnySpec]) -> str:
    return str(ask(kind.COMMAND, "--help").stdout)


def write_values(option: Option) -> str:
    """The values that an option can have, as reports/README.md writes them."""
    if option.shown.choices:
        return ", ".join(map(str, option.shown.choices))
    return "" if option.least is None else f"{option.least} to {option.most}"


def write_default(option: Option) -> str:
    """An option's default as reports/README.md writes it."""
    if option.is_needed:
        return "needed"
    if option.is_size:
        return write_bytes(option.default)
    if option.kind is tuple:
        return ", ".join(option.default) or "none"
    if option.default is None:
        return option.shown.unset or "none"
    return "off" if option.default is False else str(option.default)


def test_every_option_has_its_place() -> None:
    assert set(ORDER) == {*RUN, *COMPARE}
    assert len(ORDER) == len(set(ORDER)) > 25


@pytest.mark.parametrize(("kind", "option"), ALL)
def test_it_is_in_help(kind: type[AnySpec], option: Option) -> None:
    said = " ".join(read_help(kind).split())
    name = option.shown.metavar if option.is_argument else f"{option.flag} {option.shown.metavar}"
    assert f" {name.strip()} " in said
    assert option.help in said
    shown = write_default(option)
    if option.kind is not bool and not option.is_needed and shown != "none":
        of_it = said.partition(option.help)[2].partition(" --")[0]
        assert f"[default: {shown}]" in of_it


@pytest.mark.parametrize(("kind", "other"), [(RunSpec, CompareSpec), (CompareSpec, RunSpec)])
def test_no_option_is_in_the_help_of_the_other_command(
    kind: type[AnySpec], other: type[AnySpec]
) -> None:
    said = read_help(kind)
    strange = list_options(other).keys() - list_options(kind).keys()
    assert strange
    for name in strange:
        assert f"{list_options(other)[name].flag} " not in said


def find_fields(part: Any) -> dict[str, Any]:
    """The inputs of a page by the option that each is of."""
    if isinstance(part, dict):
        found = part.get("id")
        here = {found["field"]: part} if isinstance(found, dict) and "field" in found else {}
        return here | find_fields([value for key, value in part.items() if key != "id"])
    if isinstance(part, list):
        return {key: value for each in part for key, value in find_fields(each).items()}
    return {}


@pytest.mark.parametrize("kind", SPECS.values())
def test_it_is_in_the_form_with_its_bounds(kind: type[AnySpec]) -> None:
    def plain(part: Any) -> Any:
        found = part.to_plotly_json()
        return found["props"]

    page = json.loads(json.dumps(form(request_for(kind)), default=plain))
    fields = find_fields(page)
    assert fields.keys() == list_fields(kind).keys()
    for name, option in list_options(kind, Execution).items():
        if name in LEFT_OUT:
            assert LEFT_OUT[name] and name not in fields
            continue
        field = fields[name]
        assert (field["label"], field["description"]) == (option.shown.label, option.hint)
        if option.least is not None:
            assert field["min"] == option.least
        if option.shown.choices:
            assert [each["value"] for each in field["data"]] == list(map(str, option.shown.choices))


def test_it_is_on_the_card() -> None:
    spec = {name: OTHERS[option.kind] for name, option in list_options(RunSpec).items()}
    subject = card.CardSubject(
        record=make_record(RunSpec(model="m")).changed(spec=RunSpec.model_construct(**spec)),
        recipe=Recipe("m", "x", (), {}),
        proof=None,
        bytes=0,
    )
    command = card.run_command(subject)
    for name, option in list_options(RunSpec).items():
        wanted = not option.is_argument and name not in card.LEFT_OUT
        count = command.split().count(option.flag)
        assert count == (wanted and (2 if option.kind is tuple else 1)), name
    assert all(card.LEFT_OUT.values())


def test_it_is_in_the_readme() -> None:
    options = list_options(RunSpec) | list_options(CompareSpec)
    wanted = {
        name: [
            " and ".join(kind.COMMAND for kind in SPECS.values() if name in kind.model_fields),
            write_default(options[name]),
            write_values(options[name]),
            options[name].shown.unit,
            options[name].help,
        ]
        for name in ORDER
        if name in options
    }
    rows = read_rows(README, "| option |")
    assert rows == wanted
    assert list(rows) == list(wanted)


def wrong_values(option: Option) -> list[Any]:
    """Values just past an option's bounds, or beside its choices."""
    if option.shown.choices:
        return ["float8"] if option.kind is str else [0, 1, 9, 48]
    return (
        [] if option.least is None or option.most is None else [option.least - 1, option.most + 1]
    )


@pytest.mark.parametrize(("kind", "option"), ALL)
def test_bounds_are_the_same_everywhere(kind: type[AnySpec], option: Option) -> None:
    models = ["org/model"] * sum(each.is_argument for each in list_options(kind).values())
    good = dict.fromkeys(("model", "reference", "candidate"), "org/model") | {"name": "x"}
    for value in wrong_values(option):
        refused = ask(kind.COMMAND, f"{option.flag}={value}", "--", *models)
        assert refused.exit_code == 2
        said = refused.stderr.strip().removeprefix("awqscope: ").removeprefix(f"{option.flag} ")
        if option.name not in LEFT_OUT:
            found = check_request(read_request(good | {option.name: str(value)}, kind), set())
            assert found == {option.name: begin_sentence(said)}
    for value in (option.least, option.most, *option.shown.choices):
        if value is not None and option.name not in (*LEFT_OUT, "rescue_bits", "bits"):
            given = good | {option.name: str(value)}
            assert check_request(read_request(given, kind), set()) == {}


def test_widths_are_held_against_each_other_everywhere() -> None:
    refused = ask("run", "m", "--bits=5", "--rescue-bits=5").stderr.strip()
    wanted = "--rescue-bits 5 is not above --bits 5: rescue at more bits than the rest gets"
    assert refused == f"awqscope: {wanted}"
    values = {"model": "org/m", "name": "x", "bits": "5", "rescue_bits": "5"}
    found = check_request(read_request(values, RunSpec), set())
    said = "5 is not above Bits 5: rescue at more bits than the rest gets"
    assert found == {"rescue_bits": said}
    assert re.sub("--bits", "Bits", wanted.removeprefix("--rescue-bits ")) == said
