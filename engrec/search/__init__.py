"""Hyper-parameter search: Optuna asks and is told, each trial is a process or a Slurm job, no kill loses anything."""

from engrec.search.outcome import STATES, best_command, chosen, importances
from engrec.search.space import Objective, Sweep, text

__all__ = ["STATES", "Objective", "Sweep", "best_command", "chosen", "importances", "text"]
