"""The life of a trial, row by row."""

import signal

import pytest

from engrec.errors import BAD_CHECKPOINT, DISK_FULL
from engrec.search.launcher import INTERRUPTED
from engrec.search.trial import ONCE, TRANSITIONS, Action, Event, Phase, State, after, event_of

AT_WORK = [
    (Event.FOLD_FINISHED, Phase.WAITING, Action.NEXT),
    (Event.FINISHED, Phase.COMPLETE, Action.TELL),
    (Event.UNDEFINED, Phase.FAILED, Action.TELL),
    (Event.WORSE, Phase.STOPPING, Action.STOP),
    (Event.ADVANCED, Phase.WAITING, Action.NEXT),
    (Event.INTERRUPTED, Phase.WAITING, Action.NEXT),
    (Event.KILLED, Phase.WAITING, Action.NOTE),
    (Event.BAD_CHECKPOINT, Phase.WAITING, Action.RESTART),
    (Event.DISK_FULL, Phase.WAITING, Action.END),
    (Event.FAILED, Phase.FAILED, Action.TELL),
]
WAITING = [
    (Event.STARTED, Phase.RUNNING, Action.START),
    (Event.FOLD_FINISHED, Phase.WAITING, Action.NEXT),
    (Event.FINISHED, Phase.COMPLETE, Action.TELL),
    (Event.UNDEFINED, Phase.FAILED, Action.TELL),
    (Event.WORSE, Phase.PRUNED, Action.TELL),
]
STOPPING = [
    (Event.FINISHED, Phase.COMPLETE, Action.TELL),
    (Event.UNDEFINED, Phase.FAILED, Action.TELL),
    *((event, Phase.PRUNED, Action.TELL) for event in (
        Event.FOLD_FINISHED, Event.ADVANCED, Event.INTERRUPTED, Event.KILLED, Event.BAD_CHECKPOINT, Event.DISK_FULL,
        Event.FAILED,
    )),
]  # fmt: skip
ROWS = [
    *((Phase.WAITING, *row) for row in WAITING),
    *((Phase.RUNNING, *row) for row in AT_WORK),
    *((Phase.STOPPING, *row) for row in STOPPING),
]


@pytest.mark.parametrize(("phase", "event", "then", "action"), ROWS)
def test_what_follows_from_an_event(phase, event, then, action):
    state, found = after(State(phase, fold=1), event)
    assert (state.phase, found) == (then, action)
    assert state.fold == (2 if event is Event.FOLD_FINISHED else 1)


def test_every_row_of_the_table_is_tested():
    assert {(phase, event) for phase, event, *_ in ROWS} == TRANSITIONS.keys()


@pytest.mark.parametrize("event", sorted(ONCE, key=lambda event: event.name))
def test_a_second_chance_and_no_third(event):
    first, _ = after(State(Phase.RUNNING), event)
    again, action = after(first, Event.STARTED)
    assert (again.phase, action) == (Phase.RUNNING, Action.START)
    last, action = after(again, event)
    assert (last.phase, action) == (Phase.FAILED, Action.TELL)


@pytest.mark.parametrize("event", [Event.ADVANCED, Event.FOLD_FINISHED])
@pytest.mark.parametrize("chance", sorted(ONCE, key=lambda event: event.name))
def test_progress_gives_the_chance_of_an_interrupted_trial_back_and_no_other(event, chance):
    state, _ = after(State(Phase.RUNNING, chances=frozenset({chance})), event)
    assert state.chances == (frozenset() if chance is Event.INTERRUPTED else {chance})


def test_each_cause_has_a_chance_of_its_own():
    state = State(Phase.RUNNING)
    for event in ONCE:
        state, _ = after(state, event)
        state, _ = after(state, Event.STARTED)
    assert (state.phase, state.chances) == (Phase.RUNNING, ONCE)


@pytest.mark.parametrize(
    ("status", "advanced", "resumed", "event"),
    [
        (INTERRUPTED, True, True, Event.ADVANCED),
        (INTERRUPTED, False, True, Event.INTERRUPTED),
        (BAD_CHECKPOINT, False, True, Event.BAD_CHECKPOINT),
        (BAD_CHECKPOINT, False, False, Event.FAILED),
        (DISK_FULL, True, True, Event.DISK_FULL),
        (-signal.SIGKILL, True, True, Event.KILLED),
        (143, False, False, Event.KILLED),
        (-signal.SIGSEGV, False, True, Event.FAILED),
        (1, True, True, Event.FAILED),
        (0, True, True, Event.FAILED),
    ],
)
def test_what_an_exit_status_means(status, advanced, resumed, event):
    assert event_of(status, advanced, resumed) is event
