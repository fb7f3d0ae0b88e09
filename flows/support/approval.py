"""A flow that waits for a person: by Prefect's own pause."""

import time
from collections.abc import Callable

from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.runtime import flow_run
from prefect.settings import PREFECT_UI_URL

from datasets.errors import UserError
from flows.support.environment import has_server

POLL_S = 5
"""Seconds between two looks at whether somebody has answered."""
AWAY_S = 30.0
"""Seconds to wait where the server does not answer."""


def check_server(why: str) -> None:
    """Check that a server is named that others know, too.

    Args:
        why: what it is needed for, for the message.

    Raises:
        UserError: the server would be one that only this command knows.
    """
    if not has_server():
        raise UserError(f"{why}, and none is named: set PREFECT_API_URL, or run the deployment")


def wait_for_approval(
    what: str, hours: float, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> None:
    """Pause the flow run until somebody resumes it.

    A server that goes away meanwhile is waited for.

    Args:
        what: what resuming it means.
        hours: how long somebody may take.
        say: called with what to do.
        clock: seconds.

    Raises:
        UserError: nobody resumed it in time.
    """
    identity = flow_run.id
    page = PREFECT_UI_URL.value()
    where = f" at {page}/runs/flow-run/{identity}" if page else ""
    say(f"waiting up to {hours:g} h for approval of {what}")
    say(f"  approve it{where} or by: latentsync-flows approve-promotion {identity}")
    say(f"  to refuse, cancel it: prefect flow-run cancel {identity}")
    end = clock() + hours * 3600
    while True:
        try:
            left = max(1, round(end - clock()))
            # With a key the same pause is taken up again, also when it has ended by now.
            pause_flow_run(timeout=left, poll_interval=min(POLL_S, left), key="approval")
            return
        except FlowPauseTimeout:
            raise UserError(
                f"nobody approved {what} within {hours:g} h, and nothing was changed: run the "
                "command again"
            ) from None
        except Exception as error:
            if not _is_away(error) or clock() > end:
                raise
            time.sleep(AWAY_S)


def _is_away(error: Exception) -> bool:
    import httpx

    return isinstance(error, httpx.TransportError | httpx.HTTPStatusError) and (
        not isinstance(error, httpx.HTTPStatusError) or error.response.status_code >= 500
    )
