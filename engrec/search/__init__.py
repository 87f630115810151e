"""Hyper-parameter search: Optuna asks and is told, each trial is a process or a Slurm job, no kill loses anything."""
