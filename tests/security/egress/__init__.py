"""The outbound gateway under attack from inside real sandboxes."""
