"""The tests of dbtestcase."""
