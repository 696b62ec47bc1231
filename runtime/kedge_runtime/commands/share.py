"""The type of options that take a share, 0..1."""

from typing import Any

import click


class Share(click.FloatRange):
    """A number in 0..1; who gives per cent is told how to write it."""

    name = "share"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the share. Fails for what is no number, or lies outside."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(f"{error.message.rstrip('.')}: give a share, as .99", param, ctx)


SHARE = Share(0, 1)
