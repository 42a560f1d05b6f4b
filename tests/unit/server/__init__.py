"""Tests of ``dbtestcase/server``."""
