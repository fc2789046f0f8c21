"""Retries of calls that can be repeated safely."""

import email.utils
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from digit_recognizer.errors import KitError
from digit_recognizer.kaggle.connection import Failure, call_errors

LONGEST_PAUSE = 60  # seconds
Result = TypeVar("Result")


def call_with_retries(
    call: Callable[[], Result],
    describe: Callable[[Exception], Failure],
    *,
    tries: int,
    maybe_received_hint: str = "",
) -> Result:
    """Make a call; after a transient failure wait and repeat it.

    The pause is the one in the response's ``Retry-After``, else 1 s, 2 s, 4 s and so on. A response that asks for more
    than ``LONGEST_PAUSE`` ends the call.

    Args:
        call: makes the requests and reads the response.
        describe: returns the reason of a failure.
        tries: how often the call is made at most.
        maybe_received_hint: replaces the hint of a failure after which Kaggle may have acted on the request.

    Raises:
        KitError: the last try failed, or the failure is not transient.
    """
    # urllib3.Retry in the SDK's session cannot replace this loop, because it repeats single requests by method and HTTP
    # status. The SDK sends everything as POST, and Kaggle puts errors into the body of responses with status 200. A
    # response can break off while its body is read, after Retry has ended. An upload or a resumed download repeats
    # several requests, some of them to storage, outside that session. Retry also fails on a malformed Retry-After, and
    # waits for a long one.
    tried = 1
    while True:
        try:
            return call()
        except call_errors() as error:
            failure, pause = describe(error), retry_after(error, 2.0 ** (tried - 1))
            if not failure.transient or tried == tries or pause > LONGEST_PAUSE:
                hint = maybe_received_hint if maybe_received_hint and failure.maybe_received else failure.hint
                raise KitError(failure.message, hint=hint) from error
        time.sleep(pause)
        tried += 1


def retry_after(error: Exception, default: float) -> float:
    """Return the seconds in a response's ``Retry-After``, a number or a date; else ``default``."""
    response = getattr(error, "response", None)
    value = response.headers.get("Retry-After", "").strip() if response is not None else ""
    if re.fullmatch("[0-9]+", value):
        return float(value[:18])
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return default
