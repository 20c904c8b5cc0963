"""How a worker ends when going on would lose or invent data."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

from schemas.errors import WoolwatchError

logger = logging.getLogger(__name__)


def stop_process(sentence: str, *, exit_code: int = WoolwatchError.exit_code) -> NoReturn:
    """Log the sentence, with the exception that is being handled if it is not one of ours, and end the process at once.

    Our own errors say in their sentence what to do; a traceback would hide it.

    A Faust worker whose agent raised stays alive and stalls; and stopping it politely would commit and
    publish. What was durable stays, the rest is done again by whoever owns the partitions next.
    """
    error = sys.exc_info()[1]
    logger.critical("%s", sentence, exc_info=error is not None and not isinstance(error, WoolwatchError))
    logging.shutdown()
    os._exit(exit_code)


def exit_code_of(error: BaseException) -> int:
    """The exit code that an error asks for."""
    return error.exit_code if isinstance(error, WoolwatchError) else WoolwatchError.exit_code
