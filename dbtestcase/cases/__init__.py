"""A test's life, no SQL: what is done is done by the workers, here it is composed."""
