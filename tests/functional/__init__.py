"""Whole suites, run as a user would run them."""
