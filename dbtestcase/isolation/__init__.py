"""How a test is kept apart from the next one: engines led elsewhere, rolled back or cleaned up after."""
