"""Tests of ``dbtestcase/reporting``."""
