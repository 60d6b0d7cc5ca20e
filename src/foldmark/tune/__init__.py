"""A search over config keys: what is searched, the trials so far, and how far their best is to be believed. Without torch."""
