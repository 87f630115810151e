"""engrec: engagement recognition from faces."""
