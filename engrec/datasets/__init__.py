"""Where images and labels come from: one file format for real data, one renderer for the embedded default."""
