"""The outbound gateway: every packet of a sandbox ends here, and only what policy allows goes on."""
