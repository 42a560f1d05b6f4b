"""A small blog: authors publish posts, readers comment on them."""
