"""What a sandbox may reach, and where a secret may go: names, rules, decisions. Pure."""
