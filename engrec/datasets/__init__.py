"""Data sets: one file format for prepared data, one renderer for the synthetic default."""
