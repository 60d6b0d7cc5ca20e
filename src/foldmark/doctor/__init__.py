"""The data doctor: what is wrong, odd or worth knowing about a data set before training."""
