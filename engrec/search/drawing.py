"""Who draws values and who stops trials: Optuna's samplers and pruners, the same after a restart as without one."""
