"""Reports about runs: numbers, faces, figures, pages."""
