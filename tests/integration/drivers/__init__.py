"""Tests of ``dbtestcase/drivers``."""
