"""Users kept in a database, by the repository pattern."""
