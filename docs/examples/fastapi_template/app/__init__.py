"""Users and their items, in the shape of the full-stack FastAPI template."""
