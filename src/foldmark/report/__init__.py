"""What is said of a run: numbers, faces, figures, pages."""
