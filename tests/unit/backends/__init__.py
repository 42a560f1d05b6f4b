"""Tests of ``dbtestcase/backends``."""
