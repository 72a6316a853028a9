"""What surrounds the daemons: data and runtime directories, supervision, privileges, logs."""
