"""The study of causes as it is printed."""

import io

import pytest

from awqscope.app.terminal.console import PlainConsole
from awqscope.app.terminal.studies.why import show_causes
from tests.help.caused import make_causes, make_finding, make_linear


def show(width: int = 150, **changes: object) -> str:
    file = io.StringIO()
    show_causes(make_causes(**changes), PlainConsole(width=width, highlight=False, file=file))
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 150])
def test_everything_is_printed(width: int) -> None:
    finding = make_finding("head", role="v", heads=[0], numbers={"times": 9.0})
    said = show(width, findings=[finding])
    assert said.startswith("62% (58% to 66%) of the damage enters through")
    words = " ".join(said.split())
    for part in ("by head", "along the block", "attention", "massive activations", "The", "⏎"):
        assert part in words
    assert all(len(line) <= width for line in said.splitlines())


def test_what_a_model_lacks_is_left_out_and_said() -> None:
    said = show(
        linears=[make_linear("mlp", "experts", 1.0, split=None, calibrated=None, channels=[])],
        attention=[],
        lacking=["experts"],
    )
    assert "The experts are measured as one" in said and "by head" not in said
    assert "massive" not in said and "attention" not in said.replace("self_attn", "")


def test_a_tokens_text_steers_no_terminal() -> None:
    causes = make_causes()
    carrier = causes.linears[1].carriers[0].changed(text="\x1b[31m")
    linear = causes.linears[1].changed(carriers=[carrier])
    file = io.StringIO()
    show_causes(
        causes.changed(linears=[linear]), PlainConsole(width=150, highlight=False, file=file)
    )
    assert "\x1b[31m" not in file.getvalue() and "\\x1b" in file.getvalue()


def test_names_and_numbers_are_whole_where_room_is_short() -> None:
    said = show(100)
    lines = [line for line in said.splitlines() if line.split()[:1] == ["down_proj"]]
    assert lines and "…" not in said.split("by head")[0]
    assert "nats a token on" in " ".join(said.split())
