"""The clients: they put commands on the lanes and get the results. Here is what needs no I/O."""
