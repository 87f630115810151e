"""The life of a trial: its phases, the events of its runs, and a table of what follows from each."""

import signal
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from engrec.errors import BAD_CHECKPOINT, DISK_FULL
from engrec.search.launcher import INTERRUPTED

FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, 130, 143}  # exit statuses


class Phase(Enum):
    WAITING = auto()  # its next run is not started yet
    RUNNING = auto()
    STOPPING = auto()  # it is pruned, and its run has not ended yet
    COMPLETE = auto()
    PRUNED = auto()
    FAILED = auto()


class Event(Enum):
    STARTED = auto()
    FOLD_FINISHED = auto()  # and there are more folds
    FINISHED = auto()  # the last fold, or the only run
    UNDEFINED = auto()  # the run has finished, and an objective is missing or no finite number
    WORSE = auto()  # than other trials, says the pruner
    ADVANCED = auto()  # the machine was taken away, or its time was over; since the last start an epoch was saved
    INTERRUPTED = auto()  # the same, and no epoch was saved
    KILLED = auto()  # by a person, or by a system that is short of memory
    BAD_CHECKPOINT = auto()
    DISK_FULL = auto()
    FAILED = auto()  # of anything else


class Action(Enum):
    START = auto()  # the run, which resumes if it has a checkpoint
    NEXT = auto()  # the first run that has no result
    NOTE = auto()  # the same, after a note of it for the next search
    RESTART = auto()  # the same, without its checkpoint
    STOP = auto()  # the run
    TELL = auto()  # Optuna the outcome
    END = auto()  # the search; the next one resumes the trial


class Row(NamedTuple):
    phase: Phase
    action: Action


ONCE = frozenset({Event.INTERRUPTED, Event.KILLED, Event.BAD_CHECKPOINT})  # at the second time the trial fails
UNFINISHED = (Event.ADVANCED, Event.DISK_FULL, Event.FAILED, *ONCE)
COMPLETE, PRUNED, FAILED = (Row(phase, Action.TELL) for phase in (Phase.COMPLETE, Phase.PRUNED, Phase.FAILED))
NEXT = Row(Phase.WAITING, Action.NEXT)
TRANSITIONS = {
    (Phase.WAITING, Event.STARTED): Row(Phase.RUNNING, Action.START),
    (Phase.WAITING, Event.FOLD_FINISHED): NEXT,  # in an earlier search
    (Phase.WAITING, Event.FINISHED): COMPLETE,
    (Phase.WAITING, Event.UNDEFINED): FAILED,
    (Phase.WAITING, Event.WORSE): PRUNED,
    (Phase.RUNNING, Event.FOLD_FINISHED): NEXT,
    (Phase.RUNNING, Event.FINISHED): COMPLETE,
    (Phase.RUNNING, Event.UNDEFINED): FAILED,
    (Phase.RUNNING, Event.WORSE): Row(Phase.STOPPING, Action.STOP),
    (Phase.RUNNING, Event.ADVANCED): NEXT,
    (Phase.RUNNING, Event.INTERRUPTED): NEXT,
    (Phase.RUNNING, Event.KILLED): Row(Phase.WAITING, Action.NOTE),
    (Phase.RUNNING, Event.BAD_CHECKPOINT): Row(Phase.WAITING, Action.RESTART),
    (Phase.RUNNING, Event.DISK_FULL): Row(Phase.WAITING, Action.END),
    (Phase.RUNNING, Event.FAILED): FAILED,
    **{(Phase.STOPPING, event): PRUNED for event in (Event.FOLD_FINISHED, *UNFINISHED)},
    (Phase.STOPPING, Event.FINISHED): COMPLETE,  # before it could be stopped
    (Phase.STOPPING, Event.UNDEFINED): FAILED,
}


@dataclass(frozen=True)
class State:
    """fold: index into the sweep's folds. chances: the events that it had its one second chance for."""

    phase: Phase = Phase.WAITING
    fold: int = 0
    chances: frozenset[Event] = frozenset()

    @property
    def over(self) -> bool:
        return self.phase in (Phase.COMPLETE, Phase.PRUNED, Phase.FAILED)


def after(state: State, event: Event) -> tuple[State, Action]:
    """Another epoch, or another fold, gives a trial that is interrupted its chance back."""
    if event in state.chances:
        event = Event.FAILED
    phase, action = TRANSITIONS[state.phase, event]
    chances = state.chances | ({event} & ONCE)
    if event in (Event.ADVANCED, Event.FOLD_FINISHED):
        chances -= {Event.INTERRUPTED}
    return State(phase, state.fold + (event is Event.FOLD_FINISHED), chances), action


def event_of(status: int, advanced: bool, resumed: bool) -> Event:
    """What an exit status means of a run without a result. advanced: it has saved an epoch since it was started;
    resumed: it has a checkpoint of its own, else a bad one is the one that all trials start from."""
    if status == INTERRUPTED:
        return Event.ADVANCED if advanced else Event.INTERRUPTED
    if status == BAD_CHECKPOINT and resumed:
        return Event.BAD_CHECKPOINT
    if status == DISK_FULL:
        return Event.DISK_FULL
    return Event.KILLED if status in FROM_OUTSIDE else Event.FAILED
