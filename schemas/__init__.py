"""The contract between producers and workers. Imports nothing else of Creditlane."""
