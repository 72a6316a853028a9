"""How daemons log: JSON lines on standard error, which `up` stores and shows."""

import logging
import sys

import structlog


def configure(process: str) -> None:
    """Send structlog and the standard library's logging to standard error as JSON lines.

    Args:
        process: Stands in every line: api, egressd, hostd.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(process),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for talkative in ("asyncio", "alembic"):
        logging.getLogger(talkative).setLevel(logging.WARNING)


def _named(process: str) -> structlog.typing.Processor:
    def add(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["process"] = process
        return event

    return add


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # generic only in the stubs
    """Keeps quiet when `up` is gone and the pipe is broken: the daemon is about to stop in order."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the line."""
