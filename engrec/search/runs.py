"""What a trial's run leaves in its folder."""
