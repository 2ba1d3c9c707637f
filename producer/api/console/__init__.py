"""The pages for people at `/` and `/docs`."""
