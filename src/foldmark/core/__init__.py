"""The vocabulary: errors, files, geometry, config, markup, faces, metrics. Imports nothing else of Foldmark."""
