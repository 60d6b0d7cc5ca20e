"""Folds side by side on many devices and machines, with Ray. Only the functions that need Ray import it."""
