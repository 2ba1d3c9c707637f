"""Proves the books from the rows alone, for the command line and for the nightly reconciliation; writes nothing."""
