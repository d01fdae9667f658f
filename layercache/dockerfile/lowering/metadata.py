"""Instructions that only change the configuration, each with its line of history."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from layercache.dockerfile import instructions as written
from layercache.dockerfile.lowering.origins import located
from layercache.dockerfile.lowering.stage import Handler, StageFold
from layercache.errors import UsageError
from layercache.model.image_config import HealthcheckConfig, HistoryEntry, ports

__all__ = ["METADATA"]


def _label(fold: StageFold, instruction: written.Label) -> HistoryEntry:
    pairs = [
        (
            located(instruction, fold.variables.expand, name),
            located(instruction, fold.variables.expand, value),
        )
        for name, value in instruction.pairs
    ]
    for name, value in pairs:
        if not name:
            raise UsageError("LABEL: the name is empty")
        fold.labels = fold.labels.with_item(name, value)
    return HistoryEntry.of("LABEL " + " ".join(f"{n}={v}" for n, v in pairs))


def _cmd(fold: StageFold, instruction: written.Cmd) -> HistoryEntry:
    fold.config = fold.config.with_cmd(instruction.command)
    return HistoryEntry.of(f"CMD {_go_list(fold.config.cmd)}")


def _entrypoint(fold: StageFold, instruction: written.Entrypoint) -> HistoryEntry:
    fold.config = fold.config.with_entrypoint(instruction.command)
    return HistoryEntry.of(f"ENTRYPOINT {_go_list(fold.config.entrypoint)}")


def _user(fold: StageFold, instruction: written.User) -> HistoryEntry:
    fold.variables.from_argument()
    user = located(instruction, fold.variables.expand, instruction.value)
    (fold.private.add if fold.variables.from_argument() else fold.private.discard)("user")
    fold.config = fold.config.with_user(user)
    return HistoryEntry.of(f"USER {user}")


def _shell(fold: StageFold, instruction: written.Shell) -> HistoryEntry:
    fold.config = fold.config.with_shell(instruction.command)
    return HistoryEntry.of(f"SHELL {_go_words(fold.config.shell)}")


def _expose(fold: StageFold, instruction: written.Expose) -> HistoryEntry:
    shown: list[str] = []
    for word in sorted(instruction.words):  # as BuildKit, before variables are expanded
        for port in located(instruction, fold.variables.expand_words, word):
            shown += ports(port)
    for port in shown:
        fold.ports = fold.ports.with_item(port, True)
    return HistoryEntry.of(f"EXPOSE {_go_words(shown)}")


def _volume(fold: StageFold, instruction: written.Volume) -> HistoryEntry:
    paths = [located(instruction, fold.variables.expand, path) for path in instruction.words]
    if not all(paths):
        raise UsageError("VOLUME: the path is empty")
    for path in paths:
        fold.volumes = fold.volumes.with_item(path, True)
    return HistoryEntry.of(f"VOLUME {_go_words(paths)}")


def _stop_signal(fold: StageFold, instruction: written.Stopsignal) -> HistoryEntry:
    signal = located(instruction, fold.variables.expand, instruction.value)
    fold.config = fold.config.with_stop_signal(signal)
    return HistoryEntry.of(f"STOPSIGNAL {signal}")


def _onbuild_line(fold: StageFold, instruction: written.Onbuild) -> None:
    from layercache.dockerfile.lowering.remote import check_trigger

    check_trigger(instruction, instruction.trigger)
    fold.triggers.append(instruction.expression)  # no line of history


def _healthcheck(fold: StageFold, instruction: written.Healthcheck) -> HistoryEntry:
    from layercache.model.units import parse_duration

    command = instruction.command
    if command is None:
        test: tuple[str, ...] = ("NONE",)
    elif isinstance(command, str):
        test = ("CMD-SHELL", command)
    else:
        test = ("CMD", *command)
    health = HealthcheckConfig(
        test=test,
        interval=parse_duration(instruction.interval or "0"),
        timeout=parse_duration(instruction.timeout or "0"),
        start_period=parse_duration(instruction.start_period or "0"),
        start_interval=parse_duration(instruction.start_interval or "0"),
        retries=instruction.retries or 0,
    )
    fold.config = fold.config.with_healthcheck(health)
    return HistoryEntry.of(f"HEALTHCHECK {health}")


def _maintainer(fold: StageFold, instruction: written.Maintainer) -> HistoryEntry:
    fold.config = fold.config.with_maintainer(instruction.value)
    return HistoryEntry.of(f"MAINTAINER {instruction.value}")


def _go_list(values: Sequence[str]) -> str:
    """A list of strings in Go's format %q: ["a" "b"]."""
    return "[" + " ".join(json.dumps(value, ensure_ascii=False) for value in values) + "]"


def _go_words(values: Sequence[str]) -> str:
    """A list of strings in Go's format %v: [a b]."""
    return "[" + " ".join(values) + "]"


_FOLDED: Final[Mapping[type, Callable[[StageFold, Any], HistoryEntry | None]]] = {
    written.Label: _label,
    written.Cmd: _cmd,
    written.Entrypoint: _entrypoint,
    written.User: _user,
    written.Shell: _shell,
    written.Expose: _expose,
    written.Volume: _volume,
    written.Stopsignal: _stop_signal,
    written.Onbuild: _onbuild_line,
    written.Healthcheck: _healthcheck,
    written.Maintainer: _maintainer,
}


def _handler(fold_it: Callable[[StageFold, Any], HistoryEntry | None]) -> Handler:
    return lambda fold, instruction, _: fold_it(fold, instruction)


METADATA: Final[Mapping[type, Handler]] = {kind: _handler(how) for kind, how in _FOLDED.items()}
"""The fold of each of these instructions; none of them makes a step."""
