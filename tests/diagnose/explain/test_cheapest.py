"""The search for the cheapest set against trying every set."""

from collections.abc import Callable
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from awqscope.diagnose.explain.cheapest import (
    Cheapest,
    Outcome,
    Units,
    list_cheaper,
    search_cheapest,
)

Measure = Callable[[Units], float]


def run_search(sizes: dict[str, int], measure: Measure) -> tuple[Cheapest | None, set[Units]]:
    """What the search ends with when sets come to `measure` of them, and the sets that it asked."""

    def judge(units: Units) -> Outcome:
        margin = measure(units)
        return Outcome(margin > 0, margin, margin > 0, margin, 0.5)

    singles = {unit: judge(frozenset([unit])) for unit in sizes}
    search = search_cheapest(sizes, singles, measure(frozenset()))
    asked: set[Units] = set()
    answer = None
    while True:
        try:
            sets = search.send(answer)  # type: ignore[arg-type]
        except StopIteration as end:
            return end.value, asked
        assert sets and not asked & set(sets), "nothing is measured twice"
        asked |= set(sets)
        answer = {units: judge(units) for units in sets}


def every_set(units: list[str]) -> list[Units]:
    return [frozenset(c) for size in range(1, len(units) + 1) for c in combinations(units, size)]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_against_every_set(data: st.DataObject) -> None:
    units = [f"{n}.o" for n in range(data.draw(st.integers(1, 7)))]
    sizes = {unit: data.draw(st.integers(1, 9)) for unit in units}
    gains = {unit: data.draw(st.integers(-3, 5)) for unit in units}
    noise = data.draw(st.dictionaries(st.sampled_from(every_set(units)), st.integers(-6, 6)))

    def measure(chosen: Units) -> float:
        return -5.5 + sum(gains[unit] for unit in chosen) + noise.get(chosen, 0)

    found, asked = run_search(sizes, measure)
    repairing = [chosen for chosen in every_set(units) if measure(chosen) > 0]
    if found is None:
        assert frozenset(units) not in repairing
        return
    chosen = frozenset(found.units)
    assert chosen in repairing
    assert found.extra_bytes == sum(sizes[unit] for unit in chosen)
    assert found.tried == len(asked | {frozenset([unit]) for unit in units})
    for unit in chosen:
        assert chosen - {unit} not in repairing, "1-minimal"
    # 127 sets at most: all the cheaper ones are tried.
    assert found.proved
    assert found.extra_bytes == min(sum(sizes[u] for u in s) for s in repairing)


def test_many_units_are_not_tried_in_every_set() -> None:
    sizes = {f"{n}.o": 10 for n in range(40)}
    needed = frozenset(f"{n}.o" for n in (3, 11, 17, 23))

    def measure(chosen: Units) -> float:
        return len(chosen & needed) - 3.5

    found, asked = run_search(sizes, measure)
    assert found is not None
    assert frozenset(found.units) == needed
    assert not found.proved
    assert len(asked) < 400


def test_what_cannot_be_repaired() -> None:
    assert run_search({"0.o": 1, "1.o": 1}, lambda chosen: -1.0)[0] is None


def test_cheaper_sets() -> None:
    costs = {"a": 3, "b": 1, "c": 2}
    found = list_cheaper(costs, 4, 10)
    assert found is not None
    assert sorted(map(sorted, found)) == [["a"], ["b"], ["b", "c"], ["c"]]
    assert list_cheaper(costs, 100, 6) is None
    assert list_cheaper(costs, 1, 0) == []
