"""What a program or a notebook does with a report: print it, draw it, take it as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType

from hierarch.report.formats import Block, draw, markdown


class Shown:
    """A base of reports, which gives what follows from their `blocks`. rich draws such a report as
    tables, and a notebook shows it as Markdown.

    >>> from hierarch.report.formats import Line
    >>> class Answer(Shown):
    ...     def blocks(self):
    ...         return [Line("42")]
    >>> Answer().markdown()
    '- 42'
    """

    def blocks(self) -> Sequence[Block]:
        """What a terminal, Markdown and LaTeX show, from top to bottom."""
        raise NotImplementedError(f"{type(self).__name__} has no blocks")

    def render(self) -> RenderableType:
        """Tables for a terminal."""
        return draw(self.blocks())

    def markdown(self) -> str:
        """Tables as Markdown."""
        return markdown(self.blocks())

    def __rich__(self) -> RenderableType:
        return self.render()

    def _repr_markdown_(self) -> str:
        return self.markdown()
