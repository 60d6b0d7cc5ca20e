"""Faces in: the published sets, pictures, crops, folds, mirror twins, photos of one's own, downloads."""
