"""A command with many options: its help lists them under headings, the essential ones first."""

from typing import Any

import click

_ESSENTIAL = "Options"


class Headed(click.Option):
    """An option that help lists under a heading of its own."""

    def __init__(self, *names: Any, heading: str, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.heading = heading


class Grouped(click.Command):
    """Headings stand in the order of their first option; options without one come before all."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:  # of so many options, several are near; only the nearest one helps
            nearest = (exc.possibilities or [])[:1]
            raise click.NoSuchOption(exc.option_name, possibilities=nearest, ctx=exc.ctx) from exc

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {_ESSENTIAL: []}
        for option in (parameter for parameter in self.get_params(ctx) if isinstance(parameter, click.Option)):
            record = option.get_help_record(ctx)
            if record is not None:  # as it is for hidden ones
                heading = option.heading if isinstance(option, Headed) else _ESSENTIAL
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)
