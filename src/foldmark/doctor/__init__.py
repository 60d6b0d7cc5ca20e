"""The data doctor: errors, oddities and facts worth knowing about a data set before training."""
