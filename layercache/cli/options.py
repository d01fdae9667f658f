"""The arguments of the command line, as one table of options for each command."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, TypeAlias

__all__ = ["Command", "parse"]

Command: TypeAlias = Callable[[argparse.Namespace], int]

_JSON: Final = "print one JSON object on standard output"


def parse(arguments: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """The parsed command and options; exits with 2 and a usage line for invalid arguments."""
    named = arguments[0] if arguments else ""
    if named in _BUILD_COMMANDS:
        # Common commands: the options of the other commands are not built for them.
        parser = _Parser(prog=f"layercache {named}", formatter_class=_Narrow, allow_abbrev=False)
        parser.description = _BUILD_COMMANDS[named]
        parser.json = "--json" in arguments
        parser.set_defaults(command=named)
        _build_command(parser, named)
        parser.formatter_class = argparse.HelpFormatter
        options = parser.parse_args(arguments[1:])
    else:
        options = _all_commands().parse_args(arguments)
    command: Command = options.run
    return command, options


class _Narrow(argparse.HelpFormatter):
    """A formatter that does not query the terminal width: one is made just to check each option."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80)


def _all_commands() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="layercache",
        description="An image layer cache engine: build, plan, explain, advise.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="print the version and stop")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in _BUILD_COMMANDS.items():
        _build_command(
            commands.add_parser(name, help=text, description=text, allow_abbrev=False), name
        )
    _check_command(commands)
    _cache_commands(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Suggests the option that may have been meant; with `json`, reports mistakes as JSON."""

    json = False

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (--[^ =]+)", message)
        if unknown:
            from difflib import get_close_matches

            found = get_close_matches(unknown[1], re.findall(r"--[a-z-]+", self.format_help()), 1)
            message += f" (did you mean {found[0]}?)" if found else ""
        if self.json:
            from layercache.cli.build import bare_failure
            from layercache.cli.request import print_json
            from layercache.errors import UsageError

            print_json(bare_failure(UsageError(message)).to_dict())
        super().error(message)


def _count(text: str, least: int = 1) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"expected a number from {least} on, not {text!r}")
    return number


def _count_or_none(text: str) -> int:
    return _count(text, 0)


def _seconds(text: str) -> float:
    """A positive time in seconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds, not {text!r}")
    return seconds


class _Version(argparse.Action):
    """Prints the version, and warns if the unrelated project with the same import name is
    installed.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import sys
        from importlib.metadata import PackageNotFoundError, version

        from layercache._version import __version__

        print(f"layercache {__version__}")
        try:
            other = version("layercache")
        except PackageNotFoundError:
            parser.exit()
        print(
            f"layercache: warning: layercache {other} is installed, too: another project with "
            "the same import name. Each overwrites the other's files: remove both, then install "
            "layercache-engine",
            file=sys.stderr,
        )
        parser.exit()


_BUILD_COMMANDS: Final = {
    "build": "build a Dockerfile, reusing every layer that is known and unchanged",
    "plan": "say what a build would do; run nothing, write nothing",
    "explain": "say why each step would be reused or executed, down to the file",
    "advise": "say what a better order of the Dockerfile would save",
    "probe": "run reused steps again and say which differ from run to run",
}


def _build_command(parser: argparse.ArgumentParser, name: str) -> None:
    # A usage line with all options would fill a page and hide the mistake.
    parser.usage = "%(prog)s [OPTIONS] CONTEXT"
    _recipe_options(parser)
    _cache_options(parser)
    _behind_options(parser)
    _output_options(parser)
    if name == "build":
        _call_options(parser)
    if name == "explain":
        parser.add_argument("--against", metavar="REF|URL", help="compare with that build")
    if name == "advise":
        parser.add_argument("--history", type=_count, metavar="N", help="plan the last N commits")
    parser.add_argument("context", metavar="CONTEXT", help="directory of the build context")
    parser.set_defaults(run=_lazily("layercache.cli.build", f"run_{name}"))


def _call_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--check",
        action="store_const",
        const="check",
        dest="call",
        help="check the Dockerfile and build nothing; short for --call=check",
    )
    parser.add_argument(
        "--call",
        metavar="build|check|outline|targets[,format=text|json|sarif]",
        help="build nothing, and print what the checks find, what the target takes, or which "
        "targets there are",
    )


def _recipe_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "-f",
        "--file",
        metavar="FILE",
        help="the Dockerfile (default: CONTEXT/Dockerfile; - reads standard input)",
    )
    add(
        "-t",
        "--tag",
        action="append",
        default=[],
        metavar="NAME",
        help="name the image in the cache",
    )
    add("--target", metavar="STAGE", help="build this stage and what it needs")
    add(
        "--build-arg",
        action="append",
        default=[],
        metavar="K[=V]",
        help="value of an ARG; without =V it comes from the environment",
    )
    add(
        "--build-context",
        action="append",
        default=[],
        metavar="NAME=DIR|oci-layout://PATH",
        help="a further context, or an image, that FROM and --from find under NAME",
    )
    add(
        "--secret",
        action="append",
        default=[],
        metavar="id=ID[,src=FILE|,env=VAR]",
        help="a secret for RUN --mount=type=secret; in no key, layer or log",
    )
    add(
        "--ssh",
        action="append",
        default=[],
        metavar="default|ID[=SOCKET|KEY]",
        help="an agent for RUN --mount=type=ssh",
    )
    add("--label", action="append", default=[], metavar="K=V", help="a label of the image")
    add(
        "--annotation",
        action="append",
        default=[],
        metavar="K=V",
        help="an annotation of the image's manifest",
    )
    add(
        "--platform",
        action="append",
        default=[],
        metavar="OS/ARCH[/VARIANT]",
        help="build for it (default: this machine's); one for each build",
    )
    add(
        "--network",
        default="default",
        choices=("default", "host", "none"),
        help="what network commands have (default: one of their own where pasta or slirp4netns "
        "is installed, else the host's without raw sockets); host also allows network.host",
    )
    add(
        "--add-host",
        action="append",
        default=[],
        metavar="HOST:IP",
        help="a line of /etc/hosts for commands",
    )
    add("--shm-size", metavar="N", help="size of /dev/shm for commands: bytes, or with k, m, g")
    add(
        "--ulimit",
        action="append",
        default=[],
        metavar="NAME=SOFT[:HARD]",
        help="a resource limit of commands",
    )
    add(
        "--allow",
        action="append",
        default=[],
        choices=("network.host", "security.insecure"),
        help="honour RUN --network=host: what only this machine can reach; honour RUN "
        "--security=insecure: all privileges of this process",
    )
    add(
        "--keep-bytecode",
        action="store_true",
        help="leave .pyc files as commands compiled them: not made to go by content",
    )
    add("--pull", action="store_true", help="ask for base images anew")
    add(
        "--paranoid",
        action="store_true",
        help="read every file of a context again, whatever its time stamps say",
    )
    add(
        "--max-unpacked-size",
        metavar="SIZE",
        help="bytes that base layers, archives, URLs and repositories may come to in this build; "
        "default 32g",
    )
    add("--no-cache", action="store_true", help="execute every step; results are still kept")
    add(
        "--no-cache-filter",
        action="append",
        default=[],
        metavar="STAGE,…",
        help="execute every step of these stages",
    )
    add(
        "--no-cache-step",
        action="append",
        default=[],
        metavar="SELECTOR",
        help="execute these steps: STAGE:INDEX, an operation or a pattern of the text",
    )
    add(
        "--executor",
        default="auto",
        choices=("auto", "workspace", "rootfs"),
        help="who runs commands: a root file system (auto and rootfs; Linux), or this machine "
        "itself, with no isolation, in a plain directory (workspace)",
    )
    add("--step-timeout", type=_seconds, metavar="SECONDS", help="the longest one command may take")
    add(
        "--trace",
        default="off",
        type=_trace,
        metavar="off|auto|audit[=SHARE]",
        help="key commands by what they are seen to read; audit runs a share of what is reused "
        "again (default: off)",
    )
    add(
        "--no-trace-step",
        action="append",
        default=[],
        metavar="SELECTOR",
        help="with --trace: not these steps, named as for --no-cache-step",
    )
    add("--jobs", type=_count, metavar="N", help="steps that may run at once")


def _trace(text: str) -> str:
    if text == "off":  # the default needs no check
        return text
    from layercache.errors import UsageError
    from layercache.solver.trace_mode import trace_mode

    try:
        return trace_mode(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _behind_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--cache-from", action="append", default=[], metavar="URL", help="a further cache to read")
    add("--cache-to", action="append", default=[], metavar="URL", help="a further cache to write")


def _cache_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--cache",
        metavar="URL",
        help="the cache: a directory or URL (default: the user's cache directory)",
    )
    add(
        "--durability",
        default="batch",
        choices=("full", "batch", "none"),
        help="sync each write, once for the build (the default), or never",
    )
    add("--salt", default="", metavar="TEXT", help="disown everything kept under another salt")


def _output_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "-o", "--output", action="append", default=[], metavar="type=oci|docker|local|tar,dest=PATH"
    )
    add("--load", action="store_true", help="short for --output type=docker")
    add("--push", action="store_true", help="short for --output type=registry")
    add(
        "--progress",
        default="auto",
        choices=("auto", "plain", "json"),
        help="how a build is shown on standard error while it runs",
    )
    add(
        "--raw-output",
        action="store_true",
        help="show what steps write as it is, with colours and whatever else steers a terminal",
    )
    add("--json", action="store_true", help=_JSON)
    add("--metadata-file", metavar="FILE", help="write the digests and names there, as JSON")
    add(
        "--report",
        action="append",
        default=[],
        metavar="FILE",
        help="write a report: .html, .json, .md, .mmd (Mermaid), .dot, .trace (Chrome, Perfetto)",
    )
    add("--otel", action="store_true", help="send OpenTelemetry spans (extra otel)")
    add("--show-output", action="store_true", help="also show what reused steps wrote")
    add("--iidfile", metavar="FILE", help="write the digest of the image's configuration there")
    add("-q", "--quiet", action="store_true", help="print the image's digest only")


def _check_command(commands: argparse._SubParsersAction[_Parser]) -> None:
    text = "check Dockerfiles against the build checks; build nothing"
    parser = commands.add_parser("check", help=text, description=text, allow_abbrev=False)
    parser.add_argument("files", nargs="+", metavar="FILE", help="a Dockerfile; - reads one")
    parser.add_argument(
        "--format", default="text", choices=("text", "json", "sarif"), help="default: text"
    )
    parser.add_argument(
        "--skip", default="", metavar="RULE,…", help="rules that do not count; all for every rule"
    )
    parser.add_argument(
        "--experimental", default="", metavar="RULE,…", help="experimental rules that count, or all"
    )
    parser.set_defaults(run=_lazily("layercache.cli.call", "run_check"))


def _cache_commands(commands: argparse._SubParsersAction[_Parser]) -> None:
    cache = commands.add_parser("cache", help="look at, shrink or check a cache")
    verbs = cache.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, text in {
        "ls": "list records",
        "du": "say what takes the space",
        "gc": "remove what the policy lets go",
        "prune": "remove what nothing refers to; --all removes everything",
        "seal": "make the archives of layers that have none yet",
        "verify": "read everything and check it",
    }.items():
        parser = verbs.add_parser(name, help=text, usage="%(prog)s [OPTIONS]", allow_abbrev=False)
        _cache_options(parser)
        parser.add_argument("--json", action="store_true", help=_JSON)
        if name == "gc":
            parser.add_argument("--keep-storage", metavar="SIZE", help="keep at most so many bytes")
            parser.add_argument(
                "--keep-duration", metavar="DURATION", help="keep what was used since: 12h, 7d, 2w"
            )
            parser.add_argument(
                "--keep-builds",
                type=_count_or_none,
                metavar="N",
                help="keep what the last N builds used",
            )
            parser.add_argument(
                "--min-free", metavar="SIZE", help="leave so much of the file system free"
            )
        if name in {"ls", "gc", "prune"}:
            parser.add_argument(
                "--filter",
                action="append",
                default=[],
                metavar="label[!]=NAME[=VALUE]",
                help="only what builds used whose images have this label, or have it not"
                + ("; type=exec.cachemount [id=ID]: cache mounts alone" * (name == "prune")),
            )
        if name in {"gc", "prune"}:
            parser.add_argument("--dry-run", action="store_true", help="only say what would go")
        if name == "prune":
            parser.add_argument("--all", action="store_true", help="remove everything")
        if name == "verify":
            parser.add_argument(
                "--repair", action="store_true", help="remove what is damaged: it is rebuilt"
            )
        parser.set_defaults(run=_lazily("layercache.cli.cache", f"run_{name}"))
    stats = commands.add_parser(
        "stats", help="hits, misses and seconds saved over the cache's life"
    )
    _cache_options(stats)
    stats.add_argument("--json", action="store_true", help=_JSON)
    stats.set_defaults(run=_lazily("layercache.cli.cache", "run_stats"))
    images = commands.add_parser("images", help="list the images named with -t, or remove names")
    _cache_options(images)
    images.add_argument("--json", action="store_true", help=_JSON)
    images.add_argument("verb", nargs="?", choices=("rm",))
    images.add_argument("names", nargs="*", metavar="NAME")
    images.set_defaults(run=_lazily("layercache.cli.cache", "run_images"))


def _lazily(module: str, name: str) -> Command:
    def run(options: argparse.Namespace) -> int:
        from importlib import import_module

        command: Command = getattr(import_module(module), name)
        return command(options)

    return run
