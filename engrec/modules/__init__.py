"""What is trained: a backbone, a head, a loss, metrics and an optimizer in one Lightning module."""
