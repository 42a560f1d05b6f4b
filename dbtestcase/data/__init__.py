"""Rows of tests: class data, factories, sessions."""
