"""Heroes and their teams, with SQLModel."""
