"""Tests of ``dbtestcase/cases``."""
