"""Tests of foldmark.cluster."""
