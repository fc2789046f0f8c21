"""A submission kit for Kaggle's Digit Recognizer competition."""
