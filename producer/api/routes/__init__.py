"""The operations of the HTTP API, one file a kind of resource."""
