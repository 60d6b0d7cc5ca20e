"""Training one fold: batches, losses and the loop."""
