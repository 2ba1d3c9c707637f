"""Proves the books from the rows alone. Shared by the command line and by the nightly reconciliation; writes nothing."""
