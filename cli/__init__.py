"""The `creditlane` command: every command one file, and the processes that some of them start."""
