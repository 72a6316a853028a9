"""Tasks of the broker that no single caller waits for."""

import structlog

from skerry.serving import background

_log = structlog.get_logger("skerry.egress")


class Background(background.Background):
    """See `skerry.serving.background.Background`."""

    def failed(self, name: str, error: Exception) -> None:
        """Log it."""
        _log.error("task_failed", task=name, error=type(error).__name__, exc_info=True)
