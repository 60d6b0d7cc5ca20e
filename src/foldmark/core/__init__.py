"""The vocabulary: errors, files, geometry, configs, markups, tables of faces, metrics. Imports nothing of Foldmark's other packages."""
