"""Where an experiment is kept: places, settings and run folders. Without torch."""
