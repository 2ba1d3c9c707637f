"""The composition root: the local stack (embedded servers, `up`, `demo`) and the command that mounts everything."""
