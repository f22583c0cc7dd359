"""What a run leaves in its folder: settings, rounds, checkpoint, model and pictures."""
