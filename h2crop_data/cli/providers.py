"""`h2crop providers`: providers of scenes, what each requires, and whether it works from this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from h2crop_data.catalog.registry import known_providers
from h2crop_data.cli.console import Exit, print_json, say
from h2crop_data.errors import UsageError

if TYPE_CHECKING:
    from h2crop_data.catalog.provider import Provider
    from h2crop_data.catalog.provider_check import CheckedStep

app = typer.Typer(help="List the providers of scenes, and check whether this machine can use them.")

AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@app.callback(invoke_without_command=True)
def providers(context: typer.Context, as_json: AsJson = False) -> None:
    """List the providers that `catalog` in a recipe can name, one per line, with what each requires."""
    if context.invoked_subcommand is not None:
        return
    known = list(known_providers().values())
    if as_json:
        print_json([described_provider(provider) for provider in known])
        return
    width = max(len(provider.name) for provider in known)
    for provider in known:
        collections = ", ".join(collection.name for collection in provider.collections)
        say(f"{provider.name:{width}}  {provider.title}: {collections}; needs {provider.needs}")


@app.command("check")
def check_providers(
    name: Annotated[str | None, typer.Argument(help="Name of a provider (default: all).")] = None,
    as_json: AsJson = False,
) -> None:
    """Try a search, the account and one small read of each collection, and show what to do if one fails (exit code
    1)."""
    from h2crop_data.catalog.provider_check import check_provider

    known = known_providers()
    if name is not None and name not in known:
        raise UsageError(f"unknown provider {name}; known: {', '.join(known)}")
    chosen = [known[name]] if name else list(known.values())
    checked: dict[str, list[CheckedStep]] = {}
    for provider in chosen:
        checked[provider.name] = check_provider(provider)
        if not as_json:
            show_steps(provider.name, checked[provider.name])
    steps = [step for found in checked.values() for step in found]
    if as_json:
        print_json({name: [vars(step) for step in found] for name, found in checked.items()})
    if not all(step.passed for step in steps):
        raise typer.Exit(Exit.FAILED)


def show_steps(name: str, steps: list[CheckedStep]) -> None:
    """One line for each step."""
    for step in steps:
        say(f"{name} {step.collection}: {step.step} {'ok' if step.passed else 'FAILED'}: {step.text}")


def described_provider(provider: Provider) -> dict[str, Any]:
    """A provider as JSON."""
    return {
        "name": provider.name,
        "title": provider.title,
        "api": provider.api,
        "collections": [vars(collection) for collection in provider.collections],
        "needs": provider.needs,
        "connections": min((place.connections for place in provider.files if place.connections), default=None),
        "page_size": provider.page_size,
        "about": provider.about,
    }
