"""Tests of ``dbtestcase/migrations``."""
