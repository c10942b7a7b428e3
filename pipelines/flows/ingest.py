"""The flow `ingest`: photographs that arrived come into a collection; enough new ones, and its domain is retrained."""

# No postponed annotations here: Prefect makes its forms from them.

from typing import Annotated, Any

from prefect import flow, get_run_logger, runtime, task
from prefect.states import Completed, Failed
from pydantic import Field

from argan.config import params, schema
from argan.errors import UserError
from argan.redact import NO_SECRET
from pipelines import workspace
from pipelines.driver import is_busy
from pipelines.flows import artifacts
from pipelines.flows.retrain import retrain
from pipelines.flows.shared import HOOKS, PLAIN, one_line_errors, run_flow
from pipelines.flows.stages import is_transient

# Prefect's server checks this before it stores a parameter, and its form while somebody types
Source = Annotated[str, Field(min_length=1, json_schema_extra={"pattern": NO_SECRET})]
Name = Annotated[str, Field(pattern=f"^{schema.NAME.pattern}$")]


@task(
    retries=2,
    retry_delay_seconds=[30, 300],
    retry_condition_fn=is_transient,
    timeout_seconds=12 * 3600,
    **PLAIN,
)
def photos(name: str, source: str) -> Any:
    """Add what is new: checked, near duplicates reported, each photo once by its bytes; params.yaml gets the new revision."""
    from pipelines import arrivals

    try:
        added = arrivals.add_arrivals(name, source, get_run_logger().info)
    except UserError as error:
        return Failed(message=str(error))
    refused = {photo: why for each in added for photo, why in each.refused.items()}
    for photo, why in list(refused.items())[:20]:
        get_run_logger().warning(f"refused: {photo}: {why}")
    return {"new": sum(each.new for each in added), "refused": refused, "photos": added[-1].photos if added else 0}


@flow(name="ingest", flow_run_name="ingest-{collection}", timeout_seconds=16 * 24 * 3600, **HOOKS)
@one_line_errors
def ingest(
    collection: Name,
    source: Source,
    enough: Annotated[int, Field(ge=1)] = 100,
) -> Any:
    """Take in the photographs that arrived since last time; with enough new ones, retrain their domain and only it.

    Fetch, crop, train, evaluate, register: the gate decides whether the model becomes champion.

    Args:
        collection: Where the photos come in. It is also the domain to retrain.
        source: What is watched: a folder, s3://bucket/prefix, or the https address of a folder's listing (it ends in /).
            Instead of a password: ${NAME}, a variable of the worker's environment.
        enough: New photos since the last retraining that make another one worth while.
    """
    from pipelines import arrivals

    settings = workspace.prepare()
    params.check_collection_name(collection, settings)
    arrivals.checked_source(source)
    state: Any = photos.with_options(task_run_name=f"photos@{collection}")(collection, source, return_state=True)
    if not state.is_completed():
        return Failed(message=state.message)
    arrived = state.result()
    line, due = arrivals.retraining_due(collection, arrived, enough)
    get_run_logger().info(line)
    if arrived["new"]:
        artifacts.publish_arrivals(collection, source, arrived, line)
    if not due:
        return Completed(message=line, name="Completed" if arrived["new"] else "Unchanged")
    if is_busy(collection) and runtime.flow_run.run_count == 1:  # hourly runs do not queue up behind a training of days
        return Completed(message=f"{line}; it is being retrained already, a later run goes on", name="Unchanged")
    (arrivals.RETRAINING_FOLDER / collection).parent.mkdir(parents=True, exist_ok=True)
    (arrivals.RETRAINING_FOLDER / collection).touch()
    state = retrain(collection, return_state=True)
    if not state.is_completed():
        return Failed(message=state.message)
    (arrivals.RETRAINING_FOLDER / collection).unlink(missing_ok=True)
    return Completed(message=f"{line}; {state.message}")


def ingest_command(collection: str, source: str, enough: int) -> None:
    """What `argan ingest COLLECTION SOURCE` does. Raises UserError with the line it failed with."""
    from pipelines import arrivals

    params.check_collection_name(collection, workspace.prepare())
    arrivals.checked_source(source)  # before Prefect sees it
    run_flow(ingest, collection=collection, source=source, enough=enough)
