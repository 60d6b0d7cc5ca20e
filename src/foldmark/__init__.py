"""Foldmark: from a folder of annotated faces to a checked competition file.

The modules in pipeline order: faces, folds, crops, augment, train, predict, ensemble, submission.
"""

__version__ = "0.1.0"
