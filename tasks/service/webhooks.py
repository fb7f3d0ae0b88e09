"""Telling others that a job has ended: signed, and tried again for hours.

    X-Signature: t=1767225600,v1=HEX

HEX is the HMAC-SHA256 of `t`, a point and the body, with the service's secret. A receiver computes
the same, compares in constant time, and refuses times that are minutes old.
"""

import hashlib
import hmac
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from datasets.errors import SourceError
from datasets.sources.addresses import AddressPolicy, open_address
from datasets.sources.locations import AGENT
from tasks.service.queue import Delivery, JobQueue

SIGNATURE = "X-Signature"
TIMEOUT_S = 10.0


def sign(secret: str, body: bytes, at_s: int) -> str:
    """The header for a body.

    Args:
        secret: that the receiver knows, too.
        body: the request's.
        at_s: when it is sent, seconds since 1970.
    """
    text = f"{at_s}.".encode() + body
    return f"t={at_s},v1={hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()}"


class Webhooks:
    """Sends what is due.

    Args:
        queue: where it is noted.
        secret: for signatures.
        policy: which addresses may be told.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        queue: JobQueue,
        secret: str,
        policy: AddressPolicy,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue, self._secret, self._policy, self._clock = queue, secret, policy, clock

    def send_due(self) -> int:
        """Send what is due, each once; returns how many were tried."""
        due = self._queue.due()
        for each in due:
            self._queue.delivered(each, self._problem(each))
        return len(due)

    def _problem(self, delivery: Delivery) -> str:
        """What went wrong; empty if the receiver has taken it."""
        body = delivery.body.encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": AGENT,
            SIGNATURE: sign(self._secret, body, int(self._clock())),
        }
        request = urllib.request.Request(delivery.url, body, headers, method="POST")
        try:
            self._policy.check(delivery.url)
            with open_address(request, TIMEOUT_S, self._policy) as answer:
                return "" if 200 <= answer.status < 300 else f"HTTP {answer.status}"
        except urllib.error.HTTPError as error:
            with error:
                return f"HTTP {error.code}"
        except (SourceError, http.client.HTTPException, OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"[:500]
