"""Hyper-parameter search: Optuna chooses the values, each trial is a process or a Slurm job, no kill loses anything."""
