"""What `/metrics` shows, by where it is read."""
