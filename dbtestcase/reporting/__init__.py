"""What is told of a run: statements, failures, waits for locks, slow starts."""
