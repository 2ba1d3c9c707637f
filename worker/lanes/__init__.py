"""The lanes as a worker sees them: who owns which, what stands on them, what is announced and deleted."""
