"""One module against a real server."""
