"""Tasks of hostd that no single caller waits for."""

import structlog

from skerry.serving import background

_log = structlog.get_logger("skerry.hostd")


class Background(background.Background):
    """See `skerry.serving.background.Background`."""

    def failed(self, name: str, error: Exception) -> None:
        """Log all that is known."""
        _log.error(
            "task_failed", task=name, error=repr(error), detail=getattr(error, "detail", ""), exc_info=True
        )
