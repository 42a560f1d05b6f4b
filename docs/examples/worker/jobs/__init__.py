"""A queue of jobs in a table, worked off by threads."""
