"""`argan models ...`: the registry, from the command line. What is read comes without MLflow, whose import takes seconds."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from argan.cli.common import app
from argan.errors import UserError

if TYPE_CHECKING:
    from argan.registry.entities import Catalogue, ModelVersion, RegisteredModel

models = typer.Typer(name="models", help="The registry: versions, champions, and which is which.")
app.add_typer(models)

DomainArgument = Annotated[str, typer.Argument(metavar="DOMAIN", help="A domain with models.", show_default=False)]
VERSION = "A version's number, `champion` or `challenger`."
VersionArgument = Annotated[str, typer.Argument(metavar="VERSION", help=VERSION, show_default=False)]

SCORES = {  # tag -> how it reads; the first of them in every list
    "depth_spearman": "depth, rank correlation",
    "kid": "kernel distance, lower is better",
    "depth_side": "depth, scale-invariant error, lower is better",
    "depth_sign_agreement": "near and far the right way round",
    "depth_mask_auc": "subject before background, AUC",
    "fid": "Fréchet distance, lower is better",
    "precision": "precision",
    "recall": "recall",
    "sharpness_gap": "sharpness of the focused image over its photo",
}
FACTS = {
    "degenerate": "degenerate", "preset": "preset", "resolution": "resolution, px", "recipe": "recipe", "renderer": "renderer",
    "seed": "seed", "images_seen": "images seen", "photos": "photos", "photos_learned_from": "learned from",
    "data_title": "data", "data_source": "source", "data_licence": "licence of the data", "data_revision": "data revision",
    "dvc_photos": "photos in DVC", "dvc_model": "model in DVC", "git_revision": "code in Git", "features": "pictures judged by",
    "prefect_flow_run": "Prefect flow run", "prefect_url": "its page", "reevaluated": "judged anew",
    "reevaluated_on": "judged anew on",
}  # fmt: skip


@models.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """The registry: versions, champions, and which is which. Alone: `list`."""
    if context.invoked_subcommand is None:
        list_()


@models.command("list")
def list_(
    domain: Annotated[str | None, typer.Argument(help="Its versions; none: all domains.", show_default=False)] = None,
) -> None:
    """All domains with their champions, or a domain's versions."""
    catalogue, _ = _open()
    models = catalogue.models()
    if domain is not None:
        _list_versions(_find_model(models, domain), catalogue)
        return
    if not models:
        typer.echo("no models yet; make one: dvc repro, or argan retrain DOMAIN")
        return
    rows, warnings = [], []
    for model in models:
        tags = model.tags
        if model.champion is not None and tags.get("champion") != str(model.champion):  # given in MLflow's pages
            tags = next((v.tags for v in catalogue.versions(model.name, model.champion)), {})
        number = "none" if model.champion is None else str(model.champion)
        scores = [_score(tags, key) if model.champion is not None else "" for key in ("depth_spearman", "kid")]
        about = [
            tags.get("resolution", ""),
            *scores,
            _thousands(tags.get("photos", "")),
            _short(tags.get("data_title", "")),
        ]
        rows.append([model.domain, number, str(model.newest or "none"), *about])
        warnings += _warnings(model, catalogue)
        if tags.get("degenerate", "no") != "no":
            warnings.append(f"{model.domain}: version {number} is degenerate: {tags['degenerate']}")
    head = [
        "domain",
        "champion",
        "newest",
        "px",
        "depth, rank correlation",
        "kernel distance",
        "photos",
        "learned from",
    ]
    _table(head, rows)
    for warning in warnings:
        typer.echo(warning)


@models.command()
def show(
    domain: DomainArgument,
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help=VERSION)] = "champion",
) -> None:
    """A version: how good it is, what it learned from, where it comes from, how to load it."""
    catalogue, uri = _open()
    model = _find_model(catalogue.models(), domain)
    found = _find_version(model, version, catalogue)
    names = ", ".join(sorted(alias for alias, number in model.aliases.items() if number == found.number))
    typer.echo(
        f"{found.name} version {found.number}"
        + (f", {names}" if names else "")
        + f", registered {_date(found.created)}"
    )
    if gate := found.tags.get("gate"):
        typer.echo(f"gate: {_clean(gate)}")
    scores = [
        [text, _score(found.tags, key), _number(found.tags.get(f"{key}_prior", ""))]
        for key, text in SCORES.items()
        if key in found.tags
    ]
    if scores:
        typer.echo("")
        _table(["score", "95 %", "prior alone"], scores)
    typer.echo("")
    facts = [[text, _clean(found.tags[key])] for key, text in FACTS.items() if key in found.tags]
    _table([], [*facts, ["MLflow run", found.run_id], ["files", found.source]])
    typer.echo(f"\nto use it:  argan sample models:/{found.name}/{found.number}")
    if uri.startswith("http"):
        from argan import registry

        typer.echo(
            f"its page:   {registry.redacted_uri(uri)}/#/models/{found.name}/versions/{found.number}?workflowType=machine_learning"
        )
    for warning in _warnings(model, catalogue, found):
        typer.echo(warning)


@models.command()
def compare(
    domain: DomainArgument,
    a: Annotated[str, typer.Argument(metavar="A", help=VERSION)] = "champion",
    b: Annotated[str, typer.Argument(metavar="B", help=VERSION)] = "challenger",
) -> None:
    """Two versions side by side, on test photographs; and on validation photographs, by which the gate chooses, photo by photo,
    where both were judged on the same ones."""
    catalogue, uri = _open()
    model = _find_model(catalogue.models(), domain)
    one, other = (_find_version(model, version, catalogue) for version in (a, b))
    if one.number == other.number:
        raise UserError(f"{domain}: {a} and {b} are both version {one.number}; name another to compare it with")
    rows = []
    for key, text in SCORES.items():
        if key in one.tags or key in other.tags:
            rows.append([text, _score(one.tags, key), _score(other.tags, key), _difference(one.tags, other.tags, key)])
    later = ("prefect_url", "reevaluated", "reevaluated_on")
    differ = [k for k in FACTS if one.tags.get(k) != other.tags.get(k) and k not in later]
    facts = [[FACTS[k], _short(one.tags.get(k, "")), _short(other.tags.get(k, "")), ""] for k in differ]
    _table([f"{domain}, test photos", f"version {one.number}", f"version {other.number}", "difference"], rows + facts)
    typer.echo("")
    _compare_photos(one, other, uri)


@models.command()
def promote(domain: DomainArgument, version: VersionArgument) -> None:
    """Make a version champion by hand, whatever the gate said."""
    from argan import registry

    typer.echo(registry.promote(domain, _version_number(domain, version)))


@models.command()
def rollback(domain: DomainArgument) -> None:
    """Make the champion before champion again; once more: the one before that."""
    _version_number(domain, None)
    from argan import registry

    typer.echo(registry.rollback(domain))


@models.command()
def delete(
    domain: DomainArgument,
    version: VersionArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a version; never the champion. Its files stay with its run."""
    number = _version_number(domain, version)
    if not yes:
        typer.confirm(f"Delete version {number} of {domain}?", abort=True, err=True)
    from argan import registry

    typer.echo(registry.delete(domain, number))


# ---- Look-ups --------------------------------------------------------------------------------------------------------


def _open() -> tuple[Catalogue, str]:
    from argan import registry

    uri = registry.tracking_uri()
    return registry.open_catalogue(uri), uri


def _find_model(models: Sequence[RegisteredModel], domain: str) -> RegisteredModel:
    for model in models:
        if domain in (model.domain, model.name):
            return model
    names = [model.domain for model in models]
    near = difflib.get_close_matches(domain, names, 1)
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    hint = f"did you mean '{near[0]}'?" if near else f"there is: {shown}" if names else "it is empty: run `dvc repro`"
    raise UserError(f"the registry has no models of the domain '{domain}'; {hint}")


def _find_version(model: RegisteredModel, name: str, catalogue: Catalogue) -> ModelVersion:
    """A version by its number or alias. Raises UserError."""
    number = model.aliases.get(name)
    if number is None and name.isascii() and name.removeprefix("v").isdigit():
        number = int(name.removeprefix("v"))
    if number is None and name in ("champion", "challenger"):
        raise UserError(
            " ".join(_warnings(model, catalogue))
            or f"{model.domain} has no {name}; see `argan models list {model.domain}`"
        )
    if number is None:
        raise UserError(f"'{name}' is no version of {model.domain}: write a number, champion or challenger")
    if not 0 < number < 2**31 or not (found := catalogue.versions(model.name, number)):
        newest = f"1 to {model.newest}, where they were not deleted" if model.newest else "none"
        raise UserError(
            f"{model.domain} has no version {number}; there is {newest}: `argan models list {model.domain}`"
        )
    return found[0]


def _version_number(domain: str, version: str | None) -> int:
    """Found without MLflow, so that a typo is reported at once; 0 where no version is named. Raises UserError."""
    catalogue, _ = _open()
    model = _find_model(catalogue.models(), domain)
    return 0 if version is None else _find_version(model, version, catalogue).number


def _warnings(model: RegisteredModel, catalogue: Catalogue, version: ModelVersion | None = None) -> list[str]:
    """What is wrong with a model's champion, and with the version if one is given."""
    from argan.registry.champions import deleted_run
    from argan.registry.entities import ARCHIVED
    from argan.registry.history import diagnose, read_history

    warnings, changes = [], read_history(model.tags)
    if (model.champion is None and changes) or model.stage == ARCHIVED:
        live = {v.number for v in catalogue.versions(model.name) if v.stage != ARCHIVED}
        warnings.append(diagnose(model.domain, model.champion, model.stage, changes, live))
    if version and catalogue.is_deleted(version.run_id):
        warnings.append(deleted_run(version.name, version.number, version.run_id))
    return warnings


def _list_versions(model: RegisteredModel, catalogue: Catalogue) -> None:
    rows = []
    for version in catalogue.versions(model.name):
        names = [alias for alias, number in sorted(model.aliases.items()) if number == version.number]
        if version.stage != "None":
            names.append(version.stage.lower())
        scores = [_score(version.tags, key) for key in ("depth_spearman", "kid")]
        about = [
            _date(version.created),
            version.tags.get("preset", ""),
            *scores,
            _short(version.tags.get("gate", ""), 60),
        ]
        rows.append([str(version.number), ", ".join(names), *about])
    _table(["version", "", "registered", "preset", "depth, rank correlation", "kernel distance", "gate"], rows)
    for warning in _warnings(model, catalogue):
        typer.echo(warning)


def _compare_photos(one: ModelVersion, other: ModelVersion, uri: str) -> None:
    from argan.evaluation.gate import PRIMARY, compare_score
    from argan.registry.version_files import load_scores

    first, second = load_scores(one, uri), load_scores(other, uri)
    if first is None or second is None:
        missing = one.number if first is None else other.number
        typer.echo(f"not photo by photo: the scores of version {missing} are not with its files")
        return
    if first.judged_on != second.judged_on:
        typer.echo(
            "not photo by photo: they were judged on other photographs, or by other code "
            f"(version {one.number} on {first.judged_on}; version {other.number} on {second.judged_on})"
        )
        return
    rows = []
    for name in (*PRIMARY, "depth_sign_agreement"):
        try:
            c = compare_score(second, first, name)
        except ValueError:  # not known of both
            continue
        verdict = {"better": f"{other.number} is better", "worse": f"{one.number} is better"}.get(c.verdict, c.verdict)
        rows.append([SCORES[name], f"{c.gain:+.4f}", f"{c.low:+.4f} to {c.high:+.4f}", str(c.count), verdict])
    _table([f"gain of version {other.number} on {first.split} photos", "", "95 %", "pairs", "verdict"], rows)


# ---- Text ------------------------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [list(head), *rows] if head else list(rows)
    if not lines:
        return
    widths = [max(len(row[i]) for row in lines) for i in range(len(lines[0]))]
    for row in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _score(tags: Mapping[str, str], key: str) -> str:
    """0.665 (0.650 to 0.679), 0.218 ± 0.004, or the number alone; empty where it is not known."""
    if key not in tags:
        return ""
    if f"{key}_low" in tags:
        return f"{_number(tags[key])} ({_number(tags[f'{key}_low'])} to {_number(tags.get(f'{key}_high', ''))})"
    return _number(tags[key]) + (f" ± {_number(tags[f'{key}_se'])}" if f"{key}_se" in tags else "")


def _difference(one: Mapping[str, str], other: Mapping[str, str], key: str) -> str:
    try:
        return f"{float(other[key]) - float(one[key]):+.4f}"
    except (KeyError, ValueError):
        return ""


def _number(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return _clean(text)
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


def _thousands(text: str) -> str:
    return f"{int(text):,}" if text.isascii() and text.isdigit() else _clean(text)


def _date(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _clean(text: str) -> str:
    """In one line, without what would steer a terminal."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def _short(text: str, width: int = 34) -> str:
    text = _clean(text)
    return text if len(text) <= width else text[: width - 1] + "…"
