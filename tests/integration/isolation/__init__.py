"""Tests of ``dbtestcase/isolation``."""
