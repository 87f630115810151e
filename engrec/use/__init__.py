"""A trained network at work: exported with its model card."""
