"""Decisions: no server, no subprocess."""
