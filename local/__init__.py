"""The composition root: the local stack (embedded servers, `up`, `demo`) and the `creditlane` command that mounts everything."""
