"""Every rule: texts that violate it, with the line, and texts that do not."""

from __future__ import annotations

import json

import pytest

from layercache.checks import RULES, CheckOptions, check_dockerfile
from layercache.checks.output import as_json, as_sarif, as_text
from layercache.errors import DockerfileError, UsageError
from layercache.trees.patterns import Ignore

VIOLATED = [
    ("StageNameCasing", 1, "FROM scratch AS Base"),
    ("FromAsCasing", 1, "FROM scratch as base"),
    ("FromAsCasing", 1, "from scratch AS base"),
    ("NoEmptyContinuation", 3, "FROM scratch\nRUN a \\\n\n && b"),
    ("ConsistentInstructionCasing", 2, "FROM scratch\nworkdir /a\nUSER b"),
    ("ConsistentInstructionCasing", 2, "from scratch\nWORKDIR /a\nuser b"),
    ("ConsistentInstructionCasing", 2, "FROM scratch\nWorkdir /a"),
    ("DuplicateStageName", 2, "FROM scratch AS a\nFROM scratch AS a"),
    ("ReservedStageName", 1, "FROM scratch AS scratch"),
    ("ReservedStageName", 1, "FROM scratch AS context"),
    ("JSONArgsRecommended", 2, "FROM scratch\nCMD a b"),
    ("JSONArgsRecommended", 2, "FROM scratch\nENTRYPOINT a b"),
    ("MaintainerDeprecated", 2, "FROM scratch\nMAINTAINER me"),
    ("WorkdirRelativePath", 2, "FROM debian\nWORKDIR app"),
    ("MultipleInstructionsDisallowed", 2, 'FROM a\nCMD ["a"]\nRUN b\nCMD ["b"]'),
    ("MultipleInstructionsDisallowed", 2, 'FROM a\nENTRYPOINT ["a"]\nENTRYPOINT ["b"]'),
    ("MultipleInstructionsDisallowed", 2, "FROM a\nHEALTHCHECK CMD a\nHEALTHCHECK NONE"),
    ("LegacyKeyValueFormat", 2, "FROM a\nENV B c"),
    ("LegacyKeyValueFormat", 2, "FROM a\nLABEL b c d"),
    ("ExposeProtoCasing", 2, "FROM a\nEXPOSE 80/TcP"),
    ("ExposeInvalidFormat", 2, "FROM a\nEXPOSE 127.0.0.1:80:80"),
    ("ExposeInvalidFormat", 2, "FROM a\nEXPOSE 8080:80/tcp"),
    ("UndefinedArgInFrom", 1, "FROM debian:$TAG"),
    ("UndefinedArgInFrom", 2, "ARG VARIANT=a\nFROM debian:${VARAINT}"),
    ("UndefinedVar", 2, "FROM scratch\nCOPY $foo ."),
    ("UndefinedVar", 2, "FROM debian\nENV PATH=$PAHT:/app/bin"),
    ("UndefinedVar", 3, "ARG V=1\nFROM debian\nLABEL version=$V"),
    ("UndefinedVar", 2, "FROM debian\nLABEL platform=$TARGETARCH"),
    ("RedundantTargetPlatform", 1, "FROM --platform=$TARGETPLATFORM debian"),
    ("SecretsUsedInArgOrEnv", 2, "FROM a\nARG AWS_SECRET_ACCESS_KEY"),
    ("SecretsUsedInArgOrEnv", 2, "FROM a\nENV API_TOKEN=x"),
    ("SecretsUsedInArgOrEnv", 1, "ARG password\nFROM a"),
    ("InvalidDefaultArgInFrom", 2, "ARG TAG\nFROM busybox:${TAG}"),
    ("InvalidDefaultArgInFrom", 2, "ARG IMAGE\nFROM $IMAGE"),
    ("FromPlatformFlagConstDisallowed", 1, "FROM --platform=linux/amd64 debian AS build"),
    ("InstallAfterCopyAll", 3, "FROM node\nCOPY . .\nRUN npm ci"),
    ("InstallAfterCopyAll", 4, "FROM a\nCOPY . /x\nRUN ls\nRUN pip install -r requirements.txt"),
    ("PackageIndexAlone", 2, "FROM a\nRUN apt-get update\nRUN apt-get install -y git"),
    ("PackageIndexAlone", 2, "FROM a\nRUN apt-get -qq update && rm -rf /tmp/x"),
    ("CacheMountNotLocked", 2, "FROM a\nRUN --mount=type=cache,target=/var/cache/apt apt-get x"),
    ("UnpinnedSource", 2, "FROM a\nADD https://example.com/a.tar.gz /a"),
    ("UnpinnedSource", 2, "FROM a\nADD https://example.com/a.git#v1 /a"),
    ("ArgBeforeUnrelatedSteps", 2, "FROM a\nARG COMMIT\nRUN make\nLABEL c=$COMMIT"),
]  # fmt: skip

KEPT = [
    ("StageNameCasing", "FROM scratch AS base"),
    ("FromAsCasing", "From scratch as base"),
    ("ConsistentInstructionCasing", "from scratch\nworkdir /a"),
    ("JSONArgsRecommended", 'FROM a\nSHELL ["/bin/bash", "-c"]\nCMD a b'),
    ("JSONArgsRecommended", 'FROM a\nCMD ["a"]'),
    ("JSONArgsRecommended", "FROM a\nHEALTHCHECK CMD a"),
    ("WorkdirRelativePath", "FROM a\nWORKDIR /a\nWORKDIR b"),
    ("WorkdirRelativePath", "FROM a\nWORKDIR $HOME/a"),
    ("MultipleInstructionsDisallowed", 'FROM a\nCMD ["a"]\nFROM b\nCMD ["b"]'),
    ("LegacyKeyValueFormat", "FROM a\nENV B=c D=e"),
    ("ExposeProtoCasing", "FROM a\nEXPOSE 80/tcp 53/udp 90"),
    ("ExposeInvalidFormat", "FROM a\nEXPOSE 80 8000-8010/udp $PORT"),
    ("UndefinedArgInFrom", "ARG A=1\nFROM debian:$A"),
    ("UndefinedArgInFrom", "FROM --platform=$BUILDPLATFORM debian"),
    ("UndefinedVar", "FROM scratch\nARG foo\nCOPY $foo ."),
    ("UndefinedVar", "FROM scratch AS a\nENV B=c\nFROM a\nCOPY $B ."),
    ("UndefinedVar", "FROM debian\nCOPY a $JAVA_HOME/b"),
    ("UndefinedVar", "FROM scratch\nRUN echo $foo\nCMD echo $foo"),
    ("UndefinedVar", "FROM scratch\nARG TARGETARCH\nLABEL a=$TARGETARCH"),
    ("UndefinedVar", "FROM scratch\nENV A='$b'"),
    ("RedundantTargetPlatform", "FROM --platform=$BUILDPLATFORM debian"),
    ("SecretsUsedInArgOrEnv", "FROM a\nENV PUBLIC_KEY=x KEY_FILE=y MONKEY=z TOKEN_VERSION=2"),
    ("InvalidDefaultArgInFrom", "ARG TAG=1\nFROM busybox:${TAG}"),
    ("InvalidDefaultArgInFrom", "ARG TAG\nFROM busybox:${TAG:-1}"),
    ("InvalidDefaultArgInFrom", "ARG D=localhost:5000\nFROM ${D}/a/b"),
    ("FromPlatformFlagConstDisallowed", "FROM --platform=linux/amd64 debian AS build_amd64"),
    ("FromPlatformFlagConstDisallowed", "FROM --platform=$BUILDPLATFORM debian"),
    ("InvalidDefinitionDescription", "# the base\nFROM a AS base"),
    ("InstallAfterCopyAll", "FROM a\nCOPY package.json .\nRUN npm ci\nCOPY . ."),
    ("InstallAfterCopyAll", "FROM a\nCOPY --from=b . .\nRUN npm ci"),
    ("InstallAfterCopyAll", "FROM a\nCOPY . .\nRUN make"),
    ("PackageIndexAlone", "FROM a\nRUN apt-get update && apt-get install -y git"),
    ("PackageIndexAlone", "FROM a\nRUN apk update && apk add git"),
    ("PackageIndexAlone", "FROM a\nRUN <<X\napt-get update\napt-get install -y git\nX"),
    ("CacheMountNotLocked",
     "FROM a\nRUN --mount=type=cache,target=/var/cache/apt,sharing=locked apt-get x"),
    ("CacheMountNotLocked", "FROM a\nRUN --mount=type=cache,target=/root/.cache/pip pip x"),
    ("UnpinnedSource", f"FROM a\nADD --checksum=sha256:{'0' * 64} https://example.com/a /a"),
    ("UnpinnedSource", f"FROM a\nADD https://example.com/a.git#{'0' * 40} /a"),
    ("UnpinnedSource", "FROM a\nADD a.tar /a"),
    ("ArgBeforeUnrelatedSteps", "FROM a\nARG COMMIT\nRUN make"),
    ("ArgBeforeUnrelatedSteps", "FROM a\nARG TARGETARCH\nRUN make\nLABEL c=$TARGETARCH"),
    ("ArgBeforeUnrelatedSteps", "FROM a\nRUN make\nARG COMMIT\nLABEL c=$COMMIT"),
    ("ArgBeforeUnrelatedSteps", "FROM a\nARG COMMIT\nRUN make $COMMIT\nRUN x"),
]  # fmt: skip


def violated(text: str, **options: object) -> list[tuple[str, int]]:
    checked = check_dockerfile(text + "\n", **options)  # type: ignore[arg-type]
    return [(each.rule.name, each.problem.line) for each in checked.violations]


@pytest.mark.parametrize(("rule", "line", "text"), VIOLATED)
def test_a_violation_is_found_in_its_line(rule: str, line: int, text: str) -> None:
    assert (rule, line) in violated(text)


@pytest.mark.parametrize(("rule", "text"), KEPT)
def test_a_text_that_keeps_a_rule_is_left_alone(rule: str, text: str) -> None:
    assert rule not in [name for name, _ in violated(text)]


def test_every_rule_has_a_case_of_each_kind() -> None:
    """A new rule is not forgotten here."""
    special = {"CopyIgnoredFile", "InvalidDefinitionDescription"}
    assert {rule.name for rule in RULES} - special == {rule for rule, _, _ in VIOLATED}


def test_a_good_file_has_no_violation() -> None:
    text = (
        "ARG VERSION=3.12\n\nFROM python:${VERSION}-slim AS base\nWORKDIR /app\n"
        "COPY requirements.txt .\nRUN pip install -r requirements.txt\nCOPY . .\n"
        'CMD ["python", "-m", "app"]'
    )
    assert [] == violated(text)


@pytest.mark.parametrize(
    ("source", "ignored", "found"),
    [
        ("a.txt", "*.txt", True),
        ("d/a.txt", "d", True),
        ("./d", "d", True),
        (".", "*", True),
        (".", "*.txt", False),
        ("b", "*.txt", False),
        ("a.txt", "*.txt\n!a.txt", False),
    ],
)
def test_a_file_that_the_ignore_file_hides(source: str, ignored: str, found: bool) -> None:
    """Exceptions make it undecidable, so they silence the rule."""
    names = violated(f"FROM scratch\nCOPY {source} /x", ignore=Ignore.parse(ignored))
    assert found == (("CopyIgnoredFile", 2) in names)


def test_files_of_other_stages_are_not_ignored() -> None:
    names = violated("FROM a AS b\nFROM c\nCOPY --from=b a.txt .", ignore=Ignore.parse("*.txt"))
    assert [] == names


def test_descriptions_are_checked_on_demand() -> None:
    text = "# the base image\nFROM scratch AS base"
    options = CheckOptions(experimental=frozenset({"InvalidDefinitionDescription"}))
    assert [("InvalidDefinitionDescription", 2)] == violated(text, options=options)
    assert [] == violated("# base is where all begins\nFROM scratch AS base", options=options)


class TestDirectives:
    def test_the_file_skips_rules(self) -> None:
        text = "# check=skip=StageNameCasing,FromAsCasing\nFROM scratch as Base"
        assert [] == violated(text)

    def test_the_file_skips_all(self) -> None:
        assert [] == violated("# check=skip=all\nFROM scratch as Base")

    def test_a_comment_skips_for_its_instruction_alone(self) -> None:
        text = "FROM a\n# check=skip=SecretsUsedInArgOrEnv\nENV API_KEY=1\nENV API_TOKEN=2"
        assert [("SecretsUsedInArgOrEnv", 4)] == violated(text)

    def test_it_can_ask_for_an_error(self) -> None:
        assert check_dockerfile("# check=error=true\nFROM scratch as a\n").error
        assert not check_dockerfile("# check=error=false\nFROM scratch as a\n").error

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("skip=StageNameCasin", "did you mean StageNameCasing?"),
            ("skop=all", "is not an option"),
            ("error=maybe", "true or false"),
            ("skip", "is not an option"),
        ],
    )
    def test_a_wrong_one_is_an_error_with_its_line(self, value: str, message: str) -> None:
        with pytest.raises(DockerfileError, match=message) as raised:
            check_dockerfile(f"# check={value}\nFROM scratch\n")
        assert 1 == raised.value.line

    def test_options_are_read_alone(self) -> None:
        options = CheckOptions.parse("skip=all; error = 1 ;experimental=A", ["A"])
        assert CheckOptions(skip_all=True, error=True, experimental=frozenset({"A"})) == options
        with pytest.raises(UsageError, match="no rule B"):
            CheckOptions.parse("skip=B", ["A"])


def test_the_environment_of_a_base_image_counts_where_it_is_known() -> None:
    """Otherwise an unknown variable may be the base image's."""
    text = "FROM java\nCOPY a $JAVA_HOME/b"
    known = {"java": {"JAVA_HOME": "/x"}, "debian": {}}
    assert [] == violated(text, environment=known.get)
    assert [("UndefinedVar", 2)] == violated(
        text.replace("java\n", "debian\n"), environment=known.get
    )


class TestOutput:
    TEXT = "FROM scratch AS Base\nENV API_KEY=1\n"

    def test_text_marks_the_place(self) -> None:
        shown = as_text(check_dockerfile(self.TEXT))
        assert "Dockerfile:1: note: the name of the stage Base is not lower case" in shown
        assert "[StageNameCasing]" in shown
        assert "    FROM scratch AS Base\n                    ^~~~\n    expected: base" in shown
        assert shown.endswith("Dockerfile: 2 violations")
        assert "Dockerfile: no violations" == as_text(check_dockerfile("FROM scratch\n"))

    def test_json_has_the_fields_of_buildx(self) -> None:
        found = json.loads(json.dumps(as_json([check_dockerfile(self.TEXT)])))
        first = found["warnings"][0]
        assert "StageNameCasing" == first["ruleName"]
        assert first["url"].endswith("#stagenamecasing")
        assert {"line": 1, "character": 16} == first["location"]["ranges"][0]["start"]
        assert "Dockerfile" == found["sources"][0]["filename"]

    def test_sarif_names_rules_and_places(self) -> None:
        log = json.loads(json.dumps(as_sarif([check_dockerfile(self.TEXT)], "1.0")))
        run = log["runs"][0]
        assert "2.1.0" == log["version"]
        assert ["StageNameCasing", "SecretsUsedInArgOrEnv"] == [
            rule["id"] for rule in run["tool"]["driver"]["rules"]
        ]
        assert run["tool"]["driver"]["rules"][0]["helpUri"].endswith("#stagenamecasing")
        result = run["results"][1]
        assert ("SecretsUsedInArgOrEnv", 1, "error") == (
            result["ruleId"], result["ruleIndex"], result["level"],
        )  # fmt: skip
        assert 2 == result["locations"][0]["physicalLocation"]["region"]["startLine"]
