"""What the daemons behind a unix socket share: who may connect, and tasks that nobody waits for."""
