"""The fold of one stage: variables, configuration and state, instruction by instruction.

It is one class, because each instruction reads and changes what those before it left.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from layercache._base.classes import evolve
from layercache._base.persistent_map import PersistentMap
from layercache.dockerfile import instructions as written
from layercache.dockerfile.lowering.options import ImageNeed, Options, ResolvedBase, Row
from layercache.dockerfile.lowering.origins import (
    AnyInstruction,
    is_dockerfile,
    located,
    origin_of,
    problem,
)
from layercache.dockerfile.lowering.stage_graph import RecipeStages, StageText
from layercache.dockerfile.lowering.variables import Variables
from layercache.dockerfile.syntax.limits import Budget
from layercache.dockerfile.syntax.parser import parse_trigger
from layercache.errors import UsageError
from layercache.model.descriptors import SCRATCH
from layercache.model.environment import Environment
from layercache.model.graph import Base, GraphBuilder, Input, Origin, Step
from layercache.model.image_config import DEFAULT_PATH, HistoryEntry, ImageConfig
from layercache.model.instruction import Instruction
from layercache.model.operations import PARENT, SOURCE, CopyFiles, CopySource, MakeDirectory
from layercache.model.selectors import EVERYTHING, Files, Selector
from layercache.model.sources import ContextSource

__all__ = ["Handler", "StageFold", "platform_of"]


class StageFold:
    """Lowers one stage into `graph`; earlier stages are in `folds`.

    After `run`: `vertex` is the result of the stage; `rows` and `history` list its instructions;
    `missing` and `wanted` are the images and stages without which it could not continue;
    `arguments` are the first of those that ARG declared so far, in order, `declared` is their
    number. `labels`, `ports`, `volumes` and `triggers` grow line by line and join the
    configuration at the end. `handlers` fold the kinds of instructions that the class does not
    fold itself.
    """

    def __init__(
        self,
        *,
        stage: StageText,
        stages: RecipeStages,
        folds: Mapping[int, StageFold],
        graph: GraphBuilder,
        options: Options,
        globals: Variables,
        images: Mapping[ImageNeed, ResolvedBase],
        budget: Budget,
        handlers: Mapping[type, Handler],
    ) -> None:
        self.stage = stage
        self._handlers = handlers
        self.graph = graph
        self.options = options
        self.vertex = -1
        self.platform = options.platform
        self.rows: list[Row] = []
        self.base: ImageNeed | None = None
        self.missing: list[ImageNeed] = []
        self.wanted: set[int] = set()
        self.arguments: dict[str, str | None] = {}
        self.declared = 0
        self.globals = globals
        self.variables = Variables(escape=options.escape, budget=budget)
        self.config = ImageConfig()
        self.bypass = stage.label in options.no_cache_stages
        self._stages = stages
        self._folds = folds
        self._images = images
        self.budget = budget
        # What stages hand on is shared, not copied: a stage may have any number of heirs.
        self._environment = Environment()
        self._touched: set[str] = set()
        self._declared_here: dict[str, None] = {}
        self._heir: Variables | None = None
        self._known_arguments: PersistentMap[bool] = PersistentMap()
        self.labels: PersistentMap[str] = PersistentMap()
        self.ports: PersistentMap[bool] = PersistentMap()
        self.volumes: PersistentMap[bool] = PersistentMap()
        self.triggers: list[str] = []
        self.private: set[str] = set()
        """What of "user" and "workdir" was expanded from an argument."""
        self._private_env: PersistentMap[bool] = PersistentMap()
        self._before: StageFold | None = None
        self._scratch: int | None = None
        self._history: list[tuple[HistoryEntry, int | None]] = []
        self._onbuild: tuple[str, ...] = ()

    # -- the stage --------------------------------------------------------------------------

    def run(self) -> None:
        """Fold the whole stage, or stop at a missing image."""
        first = self.stage.first
        offset = 0
        if first is not None:
            origin = self._origin(first, 0)
            self.rows.append(Row(origin))
            offset = 1
            self._from(first)
        else:
            self._start(ResolvedBase("scratch", SCRATCH, self._scratch_config()))
        if self.vertex < 0:
            self._list_only(offset)
            return
        for number, trigger in enumerate(self._onbuild):
            self._trigger(first, number, trigger)
        for index, instruction in enumerate(self.stage.body, offset):
            self.apply(instruction, self._origin(instruction, index))

    def _list_only(self, offset: int) -> None:
        for instruction in self.stage.body:
            name = getattr(instruction, "from_", None)
            if isinstance(name, str):
                self.input_of(name, instruction)

    def _origin(self, instruction: AnyInstruction, index: int) -> Origin:
        number, label = self.stage.number, self.stage.label
        return origin_of(instruction, stage=number, index=index, stage_name=label)

    def _scratch_config(self) -> ImageConfig:
        os, _, rest = self.platform.partition("/")
        architecture, _, variant = rest.partition("/")
        config = ImageConfig.scratch(architecture, os, variant)
        return evolve(config, env=()) if self.options.host_path else config

    def _from(self, first: written.From) -> None:
        name = located(first, self.globals.expand, first.image)
        if not name:
            raise problem(first, f"the base name {first.image!r} is empty after expansion")
        wanted = ""
        if first.platform:
            self.platform = wanted = platform_of(first, self.globals, self.options)
        number = self._stages.base(self.stage.number, name, self.options)
        if number is not None:
            self._inherit(self._folds[number])
        elif name.lower() == "scratch":
            self.platform = self.options.platform  # it brings nothing that could belong to another
            self._start(ResolvedBase("scratch", SCRATCH, self._scratch_config()))
        elif (context := self._directory_named(name)) is not None:
            self._start(ResolvedBase("scratch", SCRATCH, self._scratch_config()))
            self._copy_context(context, self._origin(first, 0))
        else:
            image = self._image(name, wanted, first)
            if image is not None:
                self.base = self._need(name, wanted)
                self._start(image)

    def _start(self, image: ResolvedBase) -> None:
        """Begin with a resolved image."""
        self._onbuild = image.config.onbuild
        self.config = image.config.inherited()
        self._take_over(self.config)
        if self.options.host_path and "PATH" not in dict(image.config.env):
            self._environment = self._environment.without("PATH")
        for name, value in self._environment:
            self.variables.set(name, value)
        if image.config.architecture:
            self.platform = _platform_of(image.config)
        self.vertex = self.graph.source(Base(image.name, image.state))
        if image.state == SCRATCH:
            self._scratch = self.vertex

    def _inherit(self, fold: StageFold) -> None:
        """Begin where another stage ends: its arguments are seen here too (observed rule 3.7)."""
        self._onbuild = tuple(fold.triggers)
        self.config = fold.config.inherited()
        self._environment = fold._environment
        self.labels = fold.labels
        self.ports, self.volumes = fold.ports, fold.volumes
        self.variables = fold._variables_for_heirs().snapshot()
        if self.config.os != "windows" and not self._environment.has("PATH"):
            self._environment = self._environment.with_value("PATH", DEFAULT_PATH)
            self.variables.set("PATH", DEFAULT_PATH)
        self.budget.spend(1 + len(fold.arguments))
        self.arguments, self.declared = dict(fold.arguments), fold.declared
        self._known_arguments = fold._known_arguments
        self.private = set(fold.private)
        self._private_env = fold._private_env
        self._before = fold
        self._scratch = fold._scratch
        self.base = fold.base
        self.platform = fold.platform
        self.vertex = fold.vertex
        self.bypass = self.bypass or fold.bypass

    def _variables_for_heirs(self) -> Variables:
        """The variables once the configuration is applied anew, behind arguments and over those
        of its names.

        Only what this stage touched has to move, however much there is.
        """
        if self._heir is None:
            heir = self._heir = self.variables.snapshot()
            settled = self._environment
            for start in list(self._touched):
                # A variable goes before the one that follows it in the configuration, which must be
                # in its place by then.
                pending = [start] if start in self._touched else []
                while pending and (after := settled.name_after(pending[-1])) in self._touched:
                    pending.append(after or "")
                for name in reversed(pending):
                    self._touched.discard(name)
                    value, hidden = settled.get(name) or "", name in self._private_env
                    heir.set(name, value, private=hidden, before=settled.name_after(name))
            for name in self._declared_here:
                if not settled.has(name):
                    heir.move(name, before=settled.first)
        return self._heir

    def _take_over(self, config: ImageConfig) -> None:
        self._environment = Environment(config.env)
        self.labels = PersistentMap(dict(config.labels))
        self.ports = PersistentMap(dict.fromkeys(config.exposed_ports, True))
        self.volumes = PersistentMap(dict.fromkeys(config.volumes, True))

    def _copy_context(self, name: str, origin: Origin) -> None:
        """FROM a named context that is a plain directory: its whole content is the root."""
        operation = CopyFiles(sources=(CopySource(role=SOURCE, pattern="."),), destination="/")
        source = self.graph.source(ContextSource(name))
        self.add(operation, origin, [Input(SOURCE, source, Files(patterns=(".",)))])
        self._note(HistoryEntry.of(f"FROM {name}", layer=True))

    def _directory_named(self, name: str) -> str | None:
        """The further context of this name, if it is a directory and not an image."""
        found = self.options.context_named(name)
        return found if found is not None and not self.options.contexts[found] else None

    def _need(self, name: str, platform: str) -> ImageNeed:
        known = self.options.context_named(name) or name
        return ImageNeed(known, platform or self.options.platform)

    def _image(self, name: str, platform: str, instruction: AnyInstruction) -> ResolvedBase | None:
        if "://" in name and self.options.context_named(name) is None:
            # A recipe may come from anyone, so it must not open files of this machine by path.
            scheme = name.partition("://")[0][:40]
            raise problem(
                instruction,
                f"a recipe names images by reference, not with {scheme}://: give the build a "
                "further context (--build-context NAME=…, contexts={NAME: …}) and name that",
            )
        need = self._need(name, platform)
        found = self._images.get(need)
        if found is None:
            self.missing.append(need)
        return found

    def _trigger(self, first: written.From | None, number: int, text: str) -> None:
        line = first.location.line if first is not None and first.location is not None else 0
        # A stage runs all of another's: the product of the two has to have a bound.
        self.budget.spend(_TRIGGER + len(text))
        instruction = located(first, parse_trigger, text)
        origin = origin_of(
            instruction,
            stage=self.stage.number,
            index=0,
            stage_name=self.stage.label,
            onbuild=number,
            line=line,
        )
        self.apply(instruction, origin)

    def finished_config(self) -> ImageConfig:
        """The configuration of the stage so far."""
        return evolve(
            self.config,
            env=self._environment.pairs,
            labels=tuple(sorted(self.labels.items())),
            exposed_ports=tuple(sorted(self.ports)),
            volumes=tuple(sorted(self.volumes)),
            onbuild=tuple(self.triggers),
        )

    def history(self) -> list[tuple[HistoryEntry, int | None]]:
        """The lines of history so far, including those of the stages that it is based on."""
        chain: list[StageFold] = []
        fold: StageFold | None = self
        while fold is not None:
            chain.append(fold)
            fold = fold._before
        return [line for one in reversed(chain) for line in one._history]

    # -- inputs -----------------------------------------------------------------------------

    def input_of(self, name: str | None, instruction: AnyInstruction) -> int | None:
        """The vertex that `--from=name` reads: context, named context, stage or image.

        None if it is an image that is not resolved yet, or a stage that is not folded yet.
        """
        if name is None:
            return self.graph.source(ContextSource())
        number = self._stages.find(self.stage.number, name, self.options)
        if number is not None:
            fold = self._folds.get(number)
            if fold is None:
                self.wanted.add(number)
                return None
            return fold.vertex
        context = self._directory_named(name)
        if context is not None:
            return self.graph.source(ContextSource(context))
        if name.lower() == self.stage.alias or name == str(self.stage.number):
            raise problem(instruction, f"the stage {name!r} can't take files from itself")
        if self.options.context_named(name) is None:
            if self._stages.is_later(self.stage.number, name):
                raise problem(instruction, f"the stage {name!r} has to be defined before this one")
            if name.isdigit() and isinstance(instruction, written.Copy):
                raise problem(instruction, f"the file has no stage {name}: invalid stage index")
            if name.lower() == "scratch":
                return self.graph.source(Base("scratch", SCRATCH))
        image = self._image(name, "", instruction)
        if image is None:
            return None
        return self.graph.source(Base(image.name, image.state))

    @property
    def is_scratch(self) -> bool:
        """Whether there is no file yet in the stage, nor could be: no account has a name there."""
        return self.vertex == self._scratch

    def add(
        self,
        operation: Instruction,
        origin: Origin,
        inputs: Sequence[Input],
        parent: Selector = EVERYTHING,
    ) -> None:
        """Append a step on the current state, of which it reads the part that `parent` selects."""
        bypass = self.bypass or self.options.no_cache(origin)
        edges = (Input(PARENT, self.vertex, parent), *inputs)
        self.vertex = self.graph.step(
            Step(instruction=operation, inputs=edges, bypass=bypass, origin=origin)
        )

    def private_fields(self, workdir: str = "workdir") -> tuple[str, ...]:
        """The labels of the fields that hold private parts of user and working directory."""
        return tuple(sorted(workdir if name == "workdir" else name for name in self.private))

    def absolute(self, path: str) -> str:
        """`path` below the working directory, cleaned; a trailing slash is kept."""
        directory = path.endswith(("/", "/.")) or path in {".", ""}
        joined = posixpath.normpath(posixpath.join(self.config.directory, path))
        cleaned = "/" + joined.lstrip("/")
        return cleaned + "/" if directory and cleaned != "/" else cleaned

    # -- instructions -----------------------------------------------------------------------

    def apply(self, instruction: AnyInstruction, origin: Origin) -> None:
        """Fold one instruction."""
        before = self.vertex
        if not is_dockerfile(instruction):
            self._own(instruction, origin)
            self.rows.append(Row(origin, self.vertex, decides=True))
            self._note(HistoryEntry.of(origin.text, layer=True, operation=False))
            return
        handler = _OWN.get(type(instruction)) or self._handlers.get(type(instruction))
        missing = len(self.missing)
        try:
            if handler is None:
                raise UsageError(f"{instruction.op} can't be used here")
            entry = handler(self, instruction, origin)
        except UsageError as error:
            raise problem(instruction, str(error)) from error
        step = self.vertex if self.vertex != before else None
        decides = step is not None or len(self.missing) > missing
        self.rows.append(Row(origin, step, decides))
        if entry is not None:
            self._note(entry)

    def _note(self, entry: HistoryEntry) -> None:
        self._history.append((entry, None if entry.empty_layer else self.vertex))

    def _own(self, instruction: AnyInstruction, origin: Origin) -> None:
        """An embedder's own type: reads the parent and the inputs of its `reads()`.

        `reads_parent` narrows the part of the parent that it reads from everything to a selector.
        """
        from layercache.dockerfile.lowering.own_types import check_definition, reads_of

        check_definition(instruction)
        inputs = []
        for role, subject, selector in reads_of(instruction):
            if subject is None or isinstance(subject, str):
                if subject is not None:
                    self._require_known(subject, instruction)
                vertex = self.input_of(subject, instruction)
            else:
                vertex = self.graph.source(subject)
            if vertex is not None:
                inputs.append(Input(role, vertex, selector))
        parent: Selector = getattr(instruction, "reads_parent", EVERYTHING)
        self.add(instruction, origin, inputs, parent)

    def _require_known(self, name: str, instruction: AnyInstruction) -> None:
        """Raise for a name that is neither a stage nor a context: a typo would become an image."""
        here = self.stage.number
        known = (
            self._stages.find(here, name, self.options) is not None
            or self._stages.is_later(here, name)
            or self._directory_named(name) is not None
            or self.options.context_named(name) is not None
            or name.lower() in (self.stage.alias, str(here), "scratch")
        )
        if not known:
            kind = type(instruction).__name__
            text = f"{kind}.reads() names {name!r}, which is neither a stage nor a context"
            raise problem(instruction, text)

    def _arg(self, instruction: written.Arg, origin: Origin) -> HistoryEntry:
        shown = []
        for name, default in instruction.arguments:
            passed = self.options.args.get(name)
            if passed is None and default is not None:
                passed = located(instruction, self.variables.expand, default)
            elif passed is None:
                passed = self.globals.get(name)
            self.variables.declare(name, passed)
            if passed is not None:
                self._declared_here.pop(name, None)
                self._declared_here[name] = None
                if self._environment.has(name):
                    self._touched.add(name)
            self._declare(name, passed)
            shown.append(name if passed is None else f"{name}={passed}")
        return HistoryEntry.of(f"ARG {' '.join(shown)}")

    def _declare(self, name: str, passed: str | None) -> None:
        """Note the argument for history, which shows the first ones only."""
        if name not in self._known_arguments:
            self._known_arguments = self._known_arguments.with_item(name, True)
            self.declared += 1
        if name in self.arguments or len(self.arguments) < _SHOWN:
            self.arguments[name] = passed

    def _env(self, instruction: written.Env, origin: Origin) -> HistoryEntry:
        # All values of one line see the variables as they were before the line.
        pairs = []
        private = set()
        for name, value in instruction.pairs:
            name = located(instruction, self.variables.expand, name)
            self.variables.from_argument()
            pairs.append((name, located(instruction, self.variables.expand, value)))
            if self.variables.from_argument():
                private.add(name)
        for name, value in pairs:
            ImageConfig().with_env(name, value)  # checks the name
            self.variables.set(name, value, private=name in private)
            marks = self._private_env
            hidden = name in private
            self._private_env = marks.with_item(name, True) if hidden else marks.without(name)
            if self._environment.has(name):
                self._touched.add(name)
            self._environment = self._environment.with_value(name, value)
        return HistoryEntry.of("ENV " + " ".join(f"{n}={v}" for n, v in pairs))

    def _workdir(self, instruction: written.Workdir, origin: Origin) -> HistoryEntry:
        self.variables.from_argument()
        path = located(instruction, self.variables.expand, instruction.value)
        if self.variables.from_argument():
            self.private.add("workdir")
        elif path.startswith("/"):
            self.private.discard("workdir")
        self.config = self.config.with_workdir(path)
        made = self.config.directory != "/"
        if made:
            operation = MakeDirectory(
                path=self.config.directory,
                user=self.config.user,
                private=self.private_fields("path"),
            )
            self.add(operation, origin, [])
        return HistoryEntry.of(f"WORKDIR {self.config.workdir}", layer=made, operation=False)


def platform_of(first: written.From, variables: Variables, options: Options) -> str:
    """The platform that FROM asks for, in the usual spelling; raises `DockerfileError`."""
    wanted = located(first, variables.expand, first.platform or "")
    if not wanted:
        raise problem(first, f"empty platform value from expression {first.platform}")
    return str(located(first, options.spelling, wanted))


def _platform_of(config: ImageConfig) -> str:
    parts = [config.os or "linux", config.architecture, config.variant]
    return "/".join(part for part in parts if part)


_SHOWN: Final = 1_024
"""Arguments that history can show."""

_TRIGGER: Final = 1_024
"""Steps that running one trigger counts for."""

Handler: TypeAlias = Callable[[StageFold, Any, Origin], HistoryEntry | None]
"""Folds one kind of instruction; None means that it adds no line of history."""

_OWN: Final[Mapping[type, Handler]] = {
    written.Arg: StageFold._arg,
    written.Env: StageFold._env,
    written.Workdir: StageFold._workdir,
}
