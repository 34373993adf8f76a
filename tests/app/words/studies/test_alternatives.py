"""What is said of alternatives: who is better at no more bits, who is not, and what is open."""

from awqscope.app.words.studies.alternatives import (
    COLUMNS,
    alternative_rows,
    block_columns,
    block_rows,
    list_notes,
    write_finding,
    write_how,
)
from tests.help.alternatives import UNIFORM_KL, make_answer, make_row, make_usual


def test_a_loss_is_not_hidden() -> None:
    said = write_finding(make_usual())
    assert said[0] == "The run's uniform model costs a KL of 0.20000 at 4.25 bits a weight."
    assert said[1] == "Surely better at no more bits: title of gptq."
    assert said[2] == "Surely worse with more bits: title of gguf-q4_0."
    # 0.15 nats for 0.15 bits, where the rescue width gives back 0.198 for four.
    assert said[3] == (
        "Of those surely better with more bits, title of mixed gives back the most for each bit: "
        "75.0% of the KL for +0.15 bits a weight."
    )
    assert said[4] == "Not told apart from it on this text: title of nf4-x."
    assert len(said) == 5


def test_where_nothing_is_better() -> None:
    rows = [make_row("uniform", 4.25, UNIFORM_KL), make_row("rtn-4", 4.25, 0.4)]
    said = write_finding(make_answer(rows))
    assert said[1:] == ["Nothing that was measured is surely better at no more bits."]


def test_rows_say_their_numbers_with_intervals() -> None:
    rows = {row["title"]: row for row in alternative_rows(make_usual())}
    assert all(set(COLUMNS) <= row.keys() for row in rows.values())
    uniform, gptq = rows["title of uniform (uniform)"], rows["title of gptq"]
    assert uniform["over"] == uniform["delta"] == "–"
    assert uniform["class"] == "chosen" and gptq["class"] == ""
    assert gptq["over"] == "−0.1000 [−0.1200, −0.0800]"
    assert gptq["kl"] == "0.10000 [0.05000, 0.20000]"
    assert (gptq["bits"], gptq["size"], gptq["took"]) == ("4.16", "4.16 MB", "–")
    assert uniform["took"] == "12 s"
    # The least KL first.
    assert list(rows) == [row["title"] for row in alternative_rows(make_usual())]
    assert next(iter(rows)) == "title of rescue (rescue width)"


def test_notes_and_what_was_measured() -> None:
    found = make_usual()
    assert list_notes(found) == [
        "title of gptq: its head differ too",
        "awq-g128 was not measured: 128 does not divide 96",
    ]
    assert "2 windows of 256 tokens of valid.txt" in write_how(found)


def test_a_reference_that_was_quantized_before_is_told_by_what_costs_nothing() -> None:
    usual = make_usual()
    same = {"kind": "GGUF", "agreement": (1.0, 1.0, 1.0)}
    rows = [*usual.rows, make_row("gguf-q4_1", 5.0, 3e-7, **same)]
    (note,) = [note for note in list_notes(make_answer(rows)) if "grid" in note]
    assert note.startswith("title of gguf-q4_1 gives the reference's weights back")
    said = list_notes(make_answer(usual.rows, quantized_before="GGUF Q4_1"))[0]
    assert "GGUF Q4_1" in said and said.endswith("kind to that grid and those near it")


def test_a_flat_model_gives_no_weights_back() -> None:
    """One that was never trained: nothing costs much, and top tokens go all the same."""
    near = {"agreement": (0.93, 0.92, 0.94)}
    rows = [make_row("uniform", 4.65, 6e-5, agreement=(0.86, 0.84, 0.88))]
    rows += [make_row("gguf-q4_k_m", 5.9, 1e-5, **near), make_row("awq-3", 4.1, 2e-4, **near)]
    assert not [note for note in list_notes(make_answer(rows)) if "weights back" in note]
    # Nor does one whose likeliest token is always the same.
    sure = [row.changed(agreement=(1.0, 1.0, 1.0)) for row in rows]
    assert not [note for note in list_notes(make_answer(sure)) if "weights back" in note]


def test_blocks_of_those_that_were_measured_so() -> None:
    found = make_usual()
    columns = block_columns(found)
    assert list(columns) == ["block", "uniform", "rtn-4"]
    assert block_rows(found)[1] == {
        "block": "1",
        "uniform": "0.30000 [0.20000, 0.40000]",
        "rtn-4": "0.30000 [0.20000, 0.40000]",
    }
    assert block_columns(make_answer([make_row("uniform", 4.25, UNIFORM_KL)])) == {}
