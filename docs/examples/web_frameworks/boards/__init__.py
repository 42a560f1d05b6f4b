"""A notice board, in five frameworks: one model, and in each module an application as its users write it."""
