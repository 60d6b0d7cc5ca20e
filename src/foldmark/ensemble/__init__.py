"""From finished folds to one prediction: out-of-fold predictions, blending, calibration, the Python API."""
