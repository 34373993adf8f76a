"""The studies of a page, each a card, in the order in which they are read."""

from collections.abc import Callable, Mapping
from typing import Any

from awqscope.app.dashboard.jobs.moved import ModelLocation, find_model
from awqscope.app.dashboard.jobs.runs import Jobs
from awqscope.app.dashboard.jobs.studies import KINDS, StudyState, look_at_study
from awqscope.app.dashboard.sections.studies.activations import activations_card
from awqscope.app.dashboard.sections.studies.alternatives import alternatives_card
from awqscope.app.dashboard.sections.studies.asking import follow_studies, list_states
from awqscope.app.dashboard.sections.studies.calibration import calibration_card
from awqscope.app.dashboard.sections.studies.probe import probe_card
from awqscope.app.dashboard.sections.studies.tasks import tasks_card
from awqscope.app.dashboard.sections.studies.why import why_card
from awqscope.app.dashboard.urls import Page
from awqscope.app.store import Store
from awqscope.diagnose.runs.record import Comparison, Record

# location: where the run's model is; None where nothing can be started.
DrawCard = Callable[[StudyState, Store, Page, ModelLocation | None], Any]

CARDS: Mapping[str, DrawCard] = {
    "why": why_card,
    "probe": probe_card,
    "calibrate": calibration_card,
    "alternatives": alternatives_card,
    "activations": activations_card,
    "tasks": tasks_card,
}


def study_cards(store: Store, page: Page, jobs: Jobs | None) -> list[Any]:
    """The cards of a page's studies; none before the run's search and sweep are done, and for a
    comparison, which has no searches, only the results of tasks that it was given."""
    record = store.summary(page.run).record
    if isinstance(record, Comparison) and page.name != "block":
        state = look_at_study(store, page.run, KINDS["tasks"])
        card = tasks_card(state, store, page, None)
        return [] if card is None else [card]
    if not isinstance(record, Record) or not (record.is_done("search") and record.is_done("sweep")):
        return []
    location = None if jobs is None else find_model(store, page.run)
    states = list_states(store, page)
    drawn = [
        CARDS[state.kind.name](state, store, page, location)
        for state in states
        if state.kind.name in CARDS
    ]
    return [*(card for card in drawn if card is not None), *follow_studies(states)]
