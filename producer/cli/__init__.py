"""The command line's readers: status, verification, dead letters."""
