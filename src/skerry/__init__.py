"""Skerry: isolated Linux sandboxes for untrusted code, on your own machine."""

__version__ = "0.1.0"
