"""Commands on what the book ships: predictions of networks whose images it may not hold."""

from __future__ import annotations

import click


@click.group("results")
def results_group() -> None:
    """What the book ships of networks whose images it may not hold: write, list or verify it."""
