"""Measures the lane against a bare COPY."""
