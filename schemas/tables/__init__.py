"""The tables, with the constraints that check every invariant again in the database."""
