"""Client side: the roles a client can have, and the local work of each learning scheme."""
