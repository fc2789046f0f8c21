"""Run the training of members in worker processes."""
