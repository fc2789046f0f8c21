"""Train the members of a run, store them, and blend their probabilities."""
