"""What README and guides say of the project, against the project: its rooms, commands, options,
links, make targets, and what they list by name."""

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperCommand
from typer.main import get_command

from awqscope.app.cli import app
from awqscope.diagnose.gate.criteria import MAX_DROP, SECTIONS, TASKS, Criterion
from awqscope.diagnose.gate.policy import DEFAULT_PATH
from awqscope.mixedprec.families.table import FAMILIES
from awqscope.mixedprec.recipes.emitters import EMITTERS
from awqscope.mixedprec.recipes.emitters.coverage import GAPS, RELEASES
from tests.help.root import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = sorted((ROOT / "examples" / "guides").glob("*.md"))
PAGES = [ROOT / "README.md", *GUIDES, *sorted((ROOT / "reports").glob("*.md"))]
WITH_COMMANDS = [*PAGES, *sorted((ROOT / "examples" / "ci").glob("*.*"))]
MOST_LINES, WIDEST = 150, 100
CLI = get_command(app)
COMMANDS: Mapping[str, TyperCommand] = CLI.commands  # type: ignore[attr-defined]
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
# What stands in a command line for any command.
ANY_COMMAND = "COMMAND"
# Options that are not ours. By the text before them: whose they are.
OTHERS = {
    # vLLM's command, which serves a checkpoint.
    "vllm serve": {"--dtype"},
    # llama.cpp's, which its emitter's script calls.
    "llama-quantize": {"--tensor-type"},
    # lm-eval's, whose finished results `awqscope tasks` reads.
    "lm-eval run": {"--log_samples", "--output_path"},
    # A benchmark's own.
    "examples.benchmarks.others": {"--run"},
}
FENCE = re.compile(r"^```.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`([^`]+)`")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# `awqscope` where a command line begins: behind a prompt, variables, or a step of a workflow.
COMMAND_LINE = re.compile(r"^\s*(?:- |run: |\$ )?(?:[A-Z_]+=\S+ )*(awqscope .*)$")


def options_of(command: Any) -> set[str]:
    """Every name of a command's options, `-h` and `--help` among them."""
    found = {"-h", "--help"}
    for option in command.params:
        if option.param_type_name == "option":
            found |= {*option.opts, *option.secondary_opts}
    return found


KNOWN = options_of(CLI).union(*map(options_of, COMMANDS.values()))


def fenced_lines(text: str) -> list[str]:
    """The lines of a page's code blocks, those that end in a backslash joined with the next."""
    return [
        line for block in FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()
    ]


def code_pieces(text: str) -> list[str]:
    """The lines of a page's code blocks, and its code in the running text."""
    prose = FENCE.sub("", text)
    return fenced_lines(text) + [" ".join(span.split()) for span in SPAN.findall(prose)]


def split_words(line: str) -> list[str]:
    """The words of a command line, without the comment behind it and what it is sent to."""
    return shlex.split(re.split(r" #|\s+>|\s+\|", line)[0])


def misused(words: list[str]) -> Iterator[str]:
    """What does not exist in a command line of ours, given without `awqscope`."""
    name, *arguments = words
    given = {word.partition("=")[0] for word in arguments if re.match(r"--?[a-z]", word)}
    if name.startswith("-"):
        yield from {name, *given} - options_of(CLI)
    elif name == ANY_COMMAND:
        yield from given - KNOWN
    elif name not in COMMANDS:
        yield name
    else:
        yield from (f"{name} {option}" for option in given - options_of(COMMANDS[name]))


def find_unknown(text: str) -> list[str]:
    """Commands and options that a text names and that are not there."""
    found: list[str] = []
    for piece in code_pieces(text):
        line = COMMAND_LINE.match(piece)
        if line:
            found += misused(split_words(line[1])[1:])
        elif piece.split()[0:1] and piece.split()[0] in COMMANDS and " -" in piece:
            found += misused(split_words(piece))
    rest = text
    for before, options in OTHERS.items():
        for option in options:
            rest = re.sub(rf"({before}[^\n`]*?){option}(?![\w-])", r"\1", rest)
    return found + [option for option in OPTION.findall(rest) if option not in KNOWN]


def find_unusable(text: str) -> list[str]:
    """Whole command lines of a page's code blocks that the command does not take."""
    found = []
    for line in map(COMMAND_LINE.match, fenced_lines(text)):
        if line is None:
            continue
        name, *arguments = split_words(line[1])[1:]
        try:
            COMMANDS[name].make_context(name, arguments)
        except Exception as error:
            found.append(f"{line[1]}: {error}")
    return found


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def find_dead_links(page: Path, text: str) -> list[str]:
    """The relative links of a page that lead nowhere."""
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        if not there.exists() or ROOT not in there.resolve().parents:
            dead.append(target)
        elif anchor:
            other = text if there == page else there.read_text(encoding="utf-8")
            dead += [] if anchor in anchors_of(other) else [target]
    return dead


def named_targets(text: str) -> set[str]:
    """The make targets that a page names."""
    pieces = [re.match(r"\s*(?:\$ )?make ([a-z][\w-]*)", piece) for piece in code_pieces(text)]
    return {piece[1] for piece in pieces if piece}


def read_rows(text: str, head: str) -> dict[str, list[str]]:
    """A table's rows by their first cell, without backticks. head: how its first line begins."""
    lines = text.partition(head)[2].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first.strip("`"): rest for first, *rest in rows}


def guide(name: str) -> str:
    return (ROOT / "examples" / "guides" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["mixedprec", "diagnose", "app"])
def test_every_room_is_in_the_map(package: str) -> None:
    """A line a folder; modules beside folders are named in the first line."""
    chapter = README.partition("## The code")[2].partition(f"\n{package}/")[2]
    lines = []
    for line in chapter.splitlines()[1:]:
        if not line.startswith("  "):
            break
        lines.append(line)
    folders = {
        path.parent.name
        for path in (ROOT / package).glob("*/__init__.py")
        if path.parent.name != "bundled"
    }
    assert {line.split()[0].rstrip("/") for line in lines if "/" in line.split()[0]} == folders
    beside = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    named = {
        name.rstrip(",") for line in lines for name in line.split()[:4] if "/" not in line[:12]
    }
    assert beside <= named


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= MOST_LINES


def test_every_guide_is_linked_from_the_readme() -> None:
    assert GUIDES
    linked = set(re.findall(r"\]\(([^)#]+)", README))
    assert {path.relative_to(ROOT).as_posix() for path in GUIDES} <= linked


@pytest.mark.parametrize("page", [PAGES[0], *GUIDES], ids=lambda page: page.name)
def test_prose_fits_its_lines(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()
    assert [line for line in prose if len(line) > WIDEST and line[0] not in "|!"] == []


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".yml":
        text = f"```\n{text}```\n"
    assert find_unknown(text) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_are_taken_as_they_stand(page: Path) -> None:
    assert find_unusable(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert find_dead_links(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    assert named_targets(page.read_text(encoding="utf-8")) <= TARGETS


def test_every_make_target_is_in_the_guide() -> None:
    assert len(TARGETS) > 10
    assert named_targets(guide("for-developers.md")) == TARGETS


def test_every_family_is_in_the_guide() -> None:
    chapter = guide("models.md").partition("## Supported models")[2].partition("\n- ")[2]
    dense, _, mixtures = chapter.partition("\n\n")[0].partition("\n- ")
    names = f"{dense}, {mixtures.partition(': ')[2]}"
    assert sorted(re.split(r",\s+", names)) == sorted(FAMILIES)


def test_every_tool_that_is_written_for_is_in_the_guide() -> None:
    assert set(read_rows(guide("other-tools.md"), "| target ")) == set(EMITTERS)


def test_every_family_that_a_tool_does_not_take_is_in_the_guide() -> None:
    rows = read_rows(guide("other-tools.md"), "| not taken by ")
    listed = {target: sorted(families.split(", ")) for target, (families, *_) in rows.items()}
    assert listed == {target: sorted(families) for target, families in GAPS.items()}
    assert {target: release for target, (_, release) in rows.items()} == {
        target: " ".join(RELEASES[target]) for target in GAPS
    }


LIMITED: Mapping[str, tuple[Criterion, ...]] = {**SECTIONS, TASKS: (MAX_DROP,)}


@pytest.mark.parametrize("section", LIMITED)
def test_every_limit_is_in_the_guide_with_its_default(section: str) -> None:
    default = tomllib.loads(DEFAULT_PATH.read_text(encoding="utf-8"))[section]
    keys = [criterion.key for criterion in LIMITED[section]]
    keys += ["optional"] if section in ("drift", TASKS) else []
    wanted = {key: str(default.get(key, "not set")) for key in keys}
    rows = read_rows(guide("gate.md"), f"| key in `[{section}]` ")
    assert {key: cells[0] for key, cells in rows.items()} == {
        key: value.lower() for key, value in wanted.items()
    }


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("`awqscope rnu MODEL`", ["rnu"]),
        ("```\n$ awqscope shwo x\n```", ["shwo"]),
        ("`awqscope --versoin`", ["--versoin", "--versoin"]),
        ("`recipe --junit x`", ["recipe --junit"]),
        ("```\nX=1 awqscope run m \\\n  --prove\n```", ["run --prove"]),
        ("`awqscope run m -x`", ["run -x"]),
        ("Give --colour.", ["--colour"]),
        ("`vllm serve x --dtypes y`", ["--dtypes"]),
        ("`vllm serve x --tensor-type y`", ["--tensor-type"]),
        ("`awqscope COMMAND --help`, `awqscope --version`, `run --dtype x`, `gate`", []),
        ("```\nllama-quantize --tensor-type a=q4_K\nawqscope run m  # or --prove\n```", []),
    ],
)
def test_a_command_or_option_that_is_not_there_is_found(text: str, unknown: list[str]) -> None:
    assert find_unknown(text) == unknown


def test_a_command_line_that_is_not_taken_is_found() -> None:
    good = "awqscope gate RUN --print-policy > x\nawqscope run m --seq-len 9 # or more\n"
    assert find_unusable(f"```\n{good}```\n") == []
    bad = "awqscope run\nawqscope run m --seq-len nine\nawqscope rnu m\nawqscope show a b\n"
    assert len(find_unusable(f"```\n{bad}```\n")) == 4


def test_a_dead_link_is_found() -> None:
    text = "# A head: `one`\n[a](#a-head-one) [b](LICENSE) [c](https://example.org/x)\n"
    assert find_dead_links(PAGES[0], text) == []
    bad = "# A\n[a](#b) [b](nowhere.md) [c](reports/README.md#nowhere) [d](../x)\n"
    dead = ["#b", "nowhere.md", "reports/README.md#nowhere", "../x"]
    assert find_dead_links(PAGES[0], bad) == dead


def test_make_targets_are_found_in_code_alone() -> None:
    text = "We make much of `make demo`.\n```\n$ make tset\nmixedprec/  make it\n```\n"
    assert named_targets(text) == {"demo", "tset"}
