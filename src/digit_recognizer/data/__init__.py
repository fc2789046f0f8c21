"""Read the competition's files, and divide their rows into folds."""
