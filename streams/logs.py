"""Logs: one line of JSON an entry, or plain lines on a terminal. Never an event's content, never a secret.

ERROR means that data were lost or that a person must act; WARNING that something is tried again; INFO what happened.
"""

from __future__ import annotations

import logging
import sys
import time

import orjson

_RETRIES_BY_ITSELF = ("aiokafka", "kafka")
_SERVICES = ("streams.batch_transport", "streams.batch_consumer", "streams.batch_thread")
"""Faust's services log their starts and stops under the names of the modules that subclass them."""


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, part, logger, message, and the traceback where there is one."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

    def format(self, record: logging.LogRecord) -> str:
        """Format one entry."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "part": self._part,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(entry).decode()


def set_up_logs(part: str, level: int = logging.INFO) -> None:
    """Send everything to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter(f"%(asctime)s {part} %(levelname)s %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(JsonLines(part))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    handler.addFilter(_as_warning)
    for noisy in (*_RETRIES_BY_ITSELF, "faust", "mode", "numba", *_SERVICES):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _as_warning(record: logging.LogRecord) -> bool:
    """What the clients call an error they try again by themselves: nobody must act."""
    if record.levelno == logging.ERROR and record.name.startswith(_RETRIES_BY_ITSELF):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True
