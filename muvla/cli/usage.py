"""Errors of the command line itself: unknown verbs and options, missing arguments, and names of earlier versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import typer.core

from muvla.errors import MuvlaError, nearest, unknown_name

# Words of earlier versions, and what replaces each.
OLD_VERBS = {"watch": "replay", "ceilings": "baselines"}
OLD_OPTIONS = {"--arm": "--variant", "--between": "muvla diff STUDY A B"}


UsageError = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "UsageError")


class Verbs(typer.core.TyperGroup):
    """A group that answers an unknown verb with the nearest one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            if name in OLD_VERBS:
                raise renamed("VERB", name, OLD_VERBS[name])
            path = ctx.command_path
            raise unknown_name("VERB", name, self.list_commands(ctx), f"{path} --help")
        return super().resolve_command(ctx, args)


class Verb(typer.core.TyperCommand):
    """A verb that refuses an option that is given twice where only the last value would count."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter, times in Counter(order).items():
            repeatable = getattr(parameter, "multiple", False) or getattr(parameter, "count", False)
            flag = getattr(parameter, "is_flag", False) and not parameter.secondary_opts
            if times > 1 and parameter.param_type_name == "option" and not (repeatable or flag):
                raise MuvlaError(
                    max(parameter.opts, key=len),
                    got=f"{times} values",
                    expected="one value: this option is not repeatable",
                    remedy="keep the value that counts",
                )
        return super().parse_args(ctx, args)


def renamed(field: str, old: str, new: str) -> MuvlaError:
    """The error for a word of an earlier version."""
    return MuvlaError(field, got=old, expected=f"{new}, which replaces {old}", remedy=f"write {new}")


def explain(error: Any, words: Sequence[str]) -> MuvlaError:
    """A usage error of typer as an error with field, value, expectation and remedy. `words` are the command line."""
    context = error.ctx
    path = context.command_path if context else "muvla"
    see = f"see `{path} --help`"
    name = type(error).__name__
    if name == "NoSuchOption":
        return _unknown_option(error, context, path)
    if name == "BadOptionUsage":
        return MuvlaError(error.option_name, got=None, expected="a value after the option", remedy="add the value")
    if getattr(error, "param", None) is None:
        text = error.format_message().rstrip(".")
        return MuvlaError(path, got=text.removeprefix("Got "), expected="no such words", remedy=see)
    parameter = _name_of(error)
    if name == "MissingParameter":
        return MuvlaError(parameter, got=None, expected=_help_of(error), remedy=see)
    if name == "BadParameter":
        return MuvlaError(parameter, got=_value_of(parameter, words), expected=_expected(error), remedy=see)
    return MuvlaError(parameter, got=error.format_message().rstrip("."), expected="another value", remedy=see)


def _unknown_option(error: Any, context: Any, path: str) -> MuvlaError:
    option = error.option_name
    if option in OLD_OPTIONS:
        return renamed(option, option, OLD_OPTIONS[option])
    options = sorted(name for parameter in context.command.params for name in parameter.opts if name.startswith("-"))
    near = nearest(option, options)
    remedy = f"write {near[0]}" if near else f"see `{path} --help`"
    return MuvlaError(
        path, got=f"unknown option {option}", expected=f"one of {', '.join(near or options)}", remedy=remedy
    )


def _name_of(error: Any) -> str:
    parameter = error.param
    options = [name for name in parameter.opts if name.startswith("--")]
    return options[0] if options else parameter.metavar or parameter.name.upper()


def _help_of(error: Any) -> str:
    text = getattr(error.param, "help", "") or "this argument is required"
    return text[0].lower() + text[1:].rstrip(".")


def _value_of(option: str, words: Sequence[str]) -> str | None:
    """The last value that the command line gives to an option; None for an argument."""
    value = None
    for word, after in zip(words, [*words[1:], None], strict=True):
        if word == option:
            value = after
        elif word.startswith(f"{option}="):
            value = word.partition("=")[2]
    return value


def _expected(error: Any) -> str:
    """The expectation inside typer's message, such as "a valid integer"."""
    return error.message.partition(",")[0].removeprefix("Input should be ").rstrip(".")
