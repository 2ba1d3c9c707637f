"""The work that is done at its due time, one file a job."""
