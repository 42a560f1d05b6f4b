"""A shop whose engine is made late: from the environment at import, by a container, or by a factory with settings."""
