"""Backbones, one per file: forward(images) -> features (B, num_features)."""
