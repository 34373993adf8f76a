"""`awqscope terms`: what the words mean that everything uses."""

from typing import Annotated

import typer

from awqscope.app.command_line.common import examples


@examples("awqscope terms", "awqscope terms KL restored")
def terms(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TERM]...", help="Terms; all where none is given."),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print all as the guide has them.")
    ] = False,
) -> None:
    """Say what a term means, as pages and guides use it."""
    from awqscope.app.words.terms.guide import write_guide, write_terms

    print(write_guide() if markdown else write_terms(words or []), end="" if markdown else "\n")
