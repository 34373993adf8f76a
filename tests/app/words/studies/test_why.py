"""What is said of a block's causes."""

from typing import Any

import pytest

from awqscope.app.words.studies.why import (
    SENTENCES,
    find_guilty,
    name_briefly,
    name_heads,
    order_linears,
    say,
    write_attention,
    write_carriers,
    write_findings,
    write_growth,
    write_lacking,
    write_part,
    write_percent,
    write_power,
    write_steps,
    write_windows,
)
from awqscope.diagnose.studies.causes import rules
from awqscope.diagnose.studies.causes.answer import Causes
from tests.help.caused import make_causes, make_finding

CAUSES = {
    rules.CONDITIONING,
    rules.HEAD,
    rules.CHANNEL,
    rules.STRETCHED,
    rules.CALIBRATION,
    rules.CLIP,
    rules.SCALE,
}


def test_every_cause_has_a_sentence() -> None:
    assert set(SENTENCES) == CAUSES


@pytest.mark.parametrize(
    ("finding", "said"),
    [
        (
            make_finding(
                "conditioning",
                role="v",
                heads=[1],
                linear="self_attn.v_proj",
                numbers={"condition": 4012.0, "usual": 31.4, "size": 64.0},
            ),
            "62% (58% to 66%) of the damage enters through key-value head 1's values (v_proj), by "
            "rounding: its 64 rows have a condition number of 4·10³, against 31.4 in other blocks: "
            "they lie near a few directions.",
        ),
        (
            make_finding(
                "conditioning",
                role="o",
                heads=[0, 1, 2],
                linear="self_attn.o_proj",
                numbers={"condition": 4012.0, "usual": 31.4, "size": 64.0},
            ),
            "62% (58% to 66%) of the damage enters through the output projection of heads 0–2 "
            "(o_proj), by rounding: the 64 columns of each have a condition number of 4·10³, "
            "against 31.4 in other blocks: they lie near a few directions.",
        ),
        (
            make_finding(
                "head", role="q", heads=[3], linear="self_attn.q_proj", numbers={"times": 7.4}
            ),
            "62% (58% to 66%) of the damage enters through head 3's queries (q_proj), by rounding: "
            "7 times as much error as the median of the other heads brings.",
        ),
        (
            make_finding("channel", channel=17, numbers={"times": 80.0, "weight": 0.02}),
            "62% (58% to 66%) of the damage enters through input channel 17 of mlp.down_proj, by "
            "rounding: its activations reach 80 times the median channel's, and its weights are "
            "0.02 times as large as the median channel's.",
        ),
        (
            make_finding("stretched", channel=200, numbers={"times": 30.0, "group": 3.0}),
            "62% (58% to 66%) of the damage enters through weight group 3 of mlp.down_proj, by "
            "rounding: the weights of its input channel 200 are 30 times the group's median, so "
            "that the rest of the group is rounded coarsely.",
        ),
        (
            make_finding(
                "clip",
                step="clip",
                numbers={"here": 0.031, "there": 0.03, "plain": 0.02, "served": 0.05},
            ),
            "Clipping causes 62% (58% to 66%) of the damage: it adds +3.10% to the error of "
            "mlp.down_proj's output. Without its clips the block costs KL 0.02, "
            "with them 0.05.",
        ),
        (
            make_finding(
                "calibration",
                step="scale",
                channel=7,
                text="code.txt",
                numbers={
                    "here": 0.4,
                    "there": -0.01,
                    "plain": 0.02,
                    "served": 0.05,
                    "larger": 28.2,
                },
            ),
            "AWQ's scales cause 62% (58% to 66%) of the damage on code.txt: chosen on calib.txt, "
            "where they add −1.00% to the error of mlp.down_proj's output, and not for this text, "
            "where they add +40.00%. Input channel 7 is 28.2 times as large on code.txt as in the "
            "calibration text. With plain rounding the block costs KL 0.02, with these scales "
            "0.05.",
        ),
    ],
    ids=lambda value: getattr(value, "cause", None),
)
def test_a_finding_in_words(finding: Any, said: str) -> None:
    assert say(finding, make_causes()) == said


def test_findings_come_first_and_their_absence_is_said() -> None:
    finding = make_finding("head", role="q", heads=[3], numbers={"times": 7.4})
    found = write_findings(make_causes(findings=[finding]))
    assert len(found) == 1 and found[0].startswith("62%")
    *both, read = write_findings(make_causes(findings=[finding, finding]))
    assert both == [*found, *found] and read.startswith("Shares need not add up to 100%")
    [none] = write_findings(make_causes())
    assert none.startswith("No cause stands out") and "mlp.down_proj holds most of it, 70%" in none
    [noise] = write_findings(make_causes(floor=1.0))
    assert noise == "The block costs nothing that can be told from rounding."


@pytest.mark.parametrize(
    ("value", "said"),
    [(3.14159, "3.14"), (999.4, "999"), (1000.0, "1·10³"), (9.7e5, "1·10⁶"), (4.2e12, "4·10¹²")],
)
def test_large_numbers_by_their_power(value: float, said: str) -> None:
    assert write_power(value) == said


def test_shares_and_errors() -> None:
    assert write_part((0.621, 0.58, 0.66)) == "62% (58% to 66%)"
    assert write_part((0.001, -0.002, 0.004)) == "<1%"
    assert write_part((0.001, 0.0, 0.012)) == "0% (0% to 1%)"
    assert [write_percent(each) for each in (0.0052, 0.12, 1.4)] == ["0.52%", "12%", "140%"]


def test_heads_are_named_by_what_they_are() -> None:
    causes = make_causes()
    assert name_heads("q", [3], causes) == "head 3"
    assert name_heads("v", [0, 1], causes) == "key-value heads 0–1"
    assert name_heads("v", [3], make_causes(kv_heads=causes.heads)) == "head 3"


def test_the_steps_of_the_damage() -> None:
    assert write_steps(make_causes()) == (
        "Rounding alone, neither scaled nor clipped, would cost KL 0.06 nats a token; AWQ's scales "
        "take 0.02 off, clipping adds 0.01: KL 0.05 in all."
    )


def test_a_window_that_holds_most_is_named() -> None:
    assert write_windows(make_causes()) == ""
    assert write_windows(make_causes(by_window=[0.01, 0.13, 0.01])).startswith("Window 3 holds 87%")


def test_the_growth_names_where_it_begins_and_is_largest() -> None:
    said = write_growth(make_causes())
    assert said == (
        "The error begins with 0.5% at the output of self_attn.v_proj, is largest with 4% at the "
        "input of mlp.down_proj, "
        "and leaves the block with 0.1% of its output."
    )


def guilty(causes: Causes) -> int | None:
    head = find_guilty(causes)
    return None if head is None else head.head


def test_the_guilty_head_is_of_the_finding_or_moves_most() -> None:
    assert guilty(make_causes()) == 2
    finding = make_finding("head", role="v", heads=[0], numbers={"times": 9.0})
    assert guilty(make_causes(findings=[finding])) == 1
    assert guilty(make_causes(attention=[])) is None
    assert write_attention(make_causes(attention=[])) == ""
    assert write_attention(make_causes()) == (
        "Head 2 puts 30.0% of its attention on other tokens than the reference does: entropy 1.50 "
        "→ 2.00 nats, on the first token 60.0% → 40.0%."
    )


def test_massive_activations_are_named_with_their_tokens() -> None:
    said = write_carriers(make_causes())
    assert said == (
        "Into mlp.down_proj, channel 9 reaches 412, 120 times what is usual, at the first token "
        "and “⏎”. First tokens are 1.6% of all tokens and hold 80.0% of its error."
    )


def test_tokens_with_their_fair_part_of_the_error_are_not_told_of() -> None:
    down = make_causes().linears[1]
    shares = [share.changed(tokens=0.29, error=0.3) for share in down.tokens]
    causes = make_causes().changed(linears=[down.changed(tokens=shares)])
    assert "of all tokens" not in write_carriers(causes)


def test_what_is_lacking_is_said() -> None:
    causes = make_causes(lacking=["heads"], kept=["self_attn.o_proj", "mlp.up_proj"])
    assert write_lacking(causes) == [
        "The weights of this architecture's attention cannot be told by head.",
        "self_attn.o_proj and mlp.up_proj stay at 16 bits and are not looked at.",
    ]


def test_linears_are_in_the_order_of_what_they_cost() -> None:
    names = [linear.linear for linear in order_linears(make_causes())]
    assert names == ["mlp.down_proj", "self_attn.v_proj"]


def test_linears_by_their_last_part_unless_two_are_alike() -> None:
    assert name_briefly(["self_attn.q_proj", "mlp.up_proj"]) == ["q_proj", "up_proj"]
    assert name_briefly(["attn.c_proj", "mlp.c_proj"]) == ["attn.c_proj", "mlp.c_proj"]
