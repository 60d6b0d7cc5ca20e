"""How things are shown: terminal, pictures, charts, pages, W&B runs."""
