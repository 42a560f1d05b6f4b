"""SQLite: databases in files and in memory, cleaning."""
