"""Access to Kaggle, the only one to the network."""
