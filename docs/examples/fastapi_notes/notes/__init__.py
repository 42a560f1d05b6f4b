"""Notes: FastAPI with an async engine for the API and a sync one for the administration."""
