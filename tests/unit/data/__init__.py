"""Tests of ``dbtestcase/data``."""
