"""Tests of ``dbtestcase/sandbox``."""
