"""Approve a promotion that waits for a person, as the button Resume on Prefect's page does.

python -m flows.approve_promotion FLOW_RUN_ID
"""

from functools import partial
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import State

from datasets.errors import UserError
from flows.support.approval import check_server
from flows.support.artifacts import say
from flows.support.cli import run


def approve_promotion(flow_run_id: str) -> None:
    """Let a paused run of promote-model go on.

    Args:
        flow_run_id: the run's id, which promote-model --approve prints.
    """
    try:
        identity = UUID(flow_run_id)
    except ValueError:
        raise UserError(
            f"{flow_run_id!r} is not the id of a flow run: copy it from what promote-model printed"
        ) from None
    check_server("an approval needs the Prefect server on which the run waits")
    with get_client(sync_client=True) as client:
        try:
            waiting = client.read_flow_run(identity)
        except ObjectNotFound:
            raise UserError(f"the Prefect server has no flow run {flow_run_id}") from None
        if waiting.state is None or not waiting.state.is_paused():
            raise UserError(
                f"flow run {flow_run_id} is not waiting for approval: it is {_name(waiting.state)}"
            )
        client.resume_flow_run(identity)
    say(f"flow run {waiting.name} goes on")


def _name(state: State | None) -> str:
    return state.name if state is not None and state.name else "in no state"


main = partial(run, approve_promotion)

if __name__ == "__main__":
    raise SystemExit(main())
