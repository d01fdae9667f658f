"""`build` and `plan`: what each option does, seen from outside."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import RECIPE, Project, Ran
from tests.store.servers import registry_server

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def test_the_walk_through(project: Project) -> None:
    """First all is executed, then all reused, then only what takes the changed file."""
    first, second = project.build(), project.build()
    project.write(second_txt="changed")
    third = project.build()
    project.write(first_txt="changed")
    fourth = project.build()

    assert ["miss", "miss", "miss"] == first.decisions
    assert ["hit", "hit", "hit"] == second.decisions
    assert ["hit", "hit", "miss"] == third.decisions
    assert ["miss", "miss", "miss"] == fourth.decisions
    reason = third.json["steps"][3]["reason"]
    assert "files" == reason["cause"]
    assert {"kind": "file", "path": "second.txt", "what": "content"}.items() <= reason["changes"][
        0
    ].items()


def test_the_report_has_every_field(project: Project) -> None:
    """The object of the contract, schema 1."""
    report = project.build().json

    assert {"schema", "ok", "error", "steps", "image", "seconds", "saved_seconds"} <= set(report)
    assert {"config_digest", "manifest_digest", "diff_ids", "chain_id"} <= set(report["image"])
    for step in report["steps"]:
        assert {
            "stage", "index", "onbuild", "line", "op", "text", "decision", "key", "evidence",
            "layer", "seconds", "saved_seconds", "reason",
        } <= set(step)  # fmt: skip
    assert [0, 1, 2, 3, 4] == [step["index"] for step in report["steps"]]
    assert [1, 2, 3, 4, 5] == [step["line"] for step in report["steps"]]
    assert [None, "miss", "miss", "miss", None] == [s["decision"] for s in report["steps"]]


def test_people_see_what_was_reused_and_why_not(project: Project) -> None:
    """Without --json the summary is on standard error: reused, executed, why, saved."""
    project.build()
    project.write(second_txt="changed")
    ran = project.run("build", "-t", "app")

    assert 0 == ran.status
    assert "" == ran.out
    assert "reused" in ran.err
    assert "content of second.txt changed" in ran.err
    assert "2 reused, 1 executed" in ran.err
    assert "the cache saved" in ran.err


def test_it_says_where_the_result_is(project: Project) -> None:
    """A build with neither a name nor an output says once that its result stays in the cache."""
    without = project.run("build")
    named = project.run("build", "-t", "app")

    assert 1 == without.err.count("stays in the cache")
    assert "stays in the cache" not in named.err


def test_one_line_of_advice(project: Project) -> None:
    """Where everything is copied before a slow step, the file that cost it is named."""
    project.write(Dockerfile="FROM x\nCOPY . .\nRUN sleep 0.2\n")
    project.build()
    project.write(second_txt="changed")
    ran = project.run("build")

    advice = [line for line in ran.err.splitlines() if line.startswith("advice: ")]
    assert 1 == len(advice)
    assert "second.txt" in advice[0]
    assert "sleep 0.2" in advice[0]


def test_no_advice_where_the_file_is_named(project: Project) -> None:
    """A step that must run because the very file that it copies first changed is no mistake."""
    project.write(Dockerfile="FROM x\nCOPY first.txt ./\nRUN sleep 0.2\n")
    project.build()
    project.write(first_txt="changed")

    assert "advice: " not in project.run("build").err


def test_quiet_prints_the_digest(project: Project) -> None:
    """-q: the digest of the image's configuration and nothing else."""
    ran = project.run("build", "-q")

    assert 0 == ran.status
    assert "" == ran.err
    assert ran.out == project.build().json["image"]["config_digest"] + "\n"


def test_standard_input(project: Project) -> None:
    """-f - reads the Dockerfile from standard input; the context's own is not looked at."""
    project.write(Dockerfile="nonsense")
    ran = project.build("-f", "-", stdin=RECIPE)

    assert ["miss", "miss", "miss"] == ran.decisions


def test_another_file(project: Project) -> None:
    """-f names the Dockerfile; its name and place change no key."""
    project.build()
    elsewhere = project.directory / "Other"
    elsewhere.write_text(RECIPE)

    assert ["hit", "hit", "hit"] == project.build("-f", str(elsewhere)).decisions


def test_build_arguments(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value counts; without one it comes from the environment, or stays unset."""
    project.write(Dockerfile="FROM x\nARG V=none\nRUN echo $V > v\n")

    assert "none\n" == project.made()["v"]
    assert "1\n" == project.made("--build-arg", "V=1")["v"]
    monkeypatch.setenv("V", "2")
    assert "2\n" == project.made("--build-arg", "V")["v"]
    monkeypatch.delenv("V")
    assert "none\n" == project.made("--build-arg", "V")["v"]
    assert ["hit"] == project.build("--build-arg", "V=1").decisions


def test_an_argument_that_nobody_declares_is_named(project: Project) -> None:
    """It has no effect, and that is said."""
    ran = project.run("build", "--build-arg", "NOBODY=1")

    assert 0 == ran.status
    assert "NOBODY" in ran.err


def test_no_cache(project: Project) -> None:
    """Everything is executed, and the next plain build uses the newer result."""
    project.build()
    ran = project.build("--no-cache")

    assert ["miss", "miss", "miss"] == ran.decisions
    assert {"no-cache"} == {s["reason"]["cause"] for s in ran.json["steps"] if s["reason"]}
    assert ["hit", "hit", "hit"] == project.build().decisions


@pytest.mark.parametrize("selector", ["RUN", "0:2", "a:2", "RUN cat *"])
def test_no_cache_step(project: Project, selector: str) -> None:
    """One step by operation, by place and by its text; a result that came out the same keeps
    what follows."""
    project.write(Dockerfile=RECIPE.replace("FROM base", "FROM base AS a"))
    project.build()

    assert ["hit", "miss", "hit"] == project.build("--no-cache-step", selector).decisions


@pytest.mark.parametrize(
    "options",
    [
        ("--no-cache-step", "RUN nothing *"),
        ("--no-cache-step", "RUN", "--no-cache-step", "7:1"),
        ("--no-cache", "--no-cache-step", "ADD"),
        ("--no-trace-step", "ADD"),
        ("--no-cache-filter", "nowhere"),
    ],
)
def test_selectors_that_select_nothing(project: Project, options: tuple[str, ...]) -> None:
    """They are most likely typing mistakes: an error, before anything runs."""
    for command in ("build", "plan"):
        ran = project.run(command, *options)
        assert 2 == ran.status
        assert repr(options[-1]) in ran.err
    assert ["miss", "miss", "miss"] == project.build("--no-cache-step", "RUN").decisions


def test_no_cache_filter(project: Project) -> None:
    """A stage by its name, in any case; other stages are reused."""
    project.write(
        Dockerfile="FROM x AS one\nRUN echo 1 > a\nFROM x AS two\nRUN echo 2 > b\n"
        "COPY --from=one /a ./\n"
    )
    project.build()

    assert ["miss", "hit", "hit"] == project.build("--no-cache-filter", "ONE").decisions
    assert ["hit", "miss"] == project.build("--no-cache-filter", " two").decisions[:2]


def test_target(project: Project) -> None:
    """--target builds a stage and what it needs; the rest is skipped."""
    project.write(Dockerfile="FROM x AS one\nRUN echo 1 > a\nFROM x AS two\nRUN exit 3\n")
    ran = project.build("--target", "one")

    assert 0 == ran.status
    assert ["miss", "skip"] == ran.decisions


def test_build_contexts(project: Project) -> None:
    """--build-context gives further directories by name."""
    other = project.directory / "other"
    other.mkdir()
    (other / "f").write_text("from elsewhere")
    project.write(Dockerfile="FROM x\nCOPY --from=more f ./\n")

    assert "from elsewhere" == project.made("--build-context", f"more={other}")["f"]


def test_secrets_are_masked(project: Project) -> None:
    """What a command echoes of a secret is not shown, now or later, and is nowhere in the cache."""
    secret = project.directory / "secret"
    secret.write_text("hunter-two-is-the-password")
    project.write(Dockerfile="FROM x\nRUN --mount=type=secret,id=s,target=s cat s; cat s >&2\n")
    ran = project.run("build", "--progress", "plain", "--secret", f"id=s,src={secret}")
    files = [path for path in project.cache.rglob("*") if path.is_file()]

    assert 0 == ran.status, ran.err
    assert "hunter" not in ran.out + ran.err
    assert [] == [path for path in files if b"hunter-two" in path.read_bytes()]


def test_a_failing_command_does_not_tell_its_secret(project: Project) -> None:
    """Neither the message nor the report of a failure shows it."""
    secret = project.directory / "secret"
    secret.write_text("hunter-two-is-the-password")
    project.write(Dockerfile="FROM x\nRUN --mount=type=secret,id=s,target=s cat s; exit 3\n")
    ran = project.build("--secret", f"id=s,src={secret}")

    assert 1 == ran.status
    assert "hunter" not in ran.out + ran.err


def test_a_required_secret_is_asked_for(project: Project) -> None:
    """Without it the build fails and says what to pass."""
    project.write(Dockerfile="FROM x\nRUN --mount=type=secret,id=s,required cat /run/secrets/s\n")
    ran = project.build()

    assert 1 == ran.status
    assert "--secret id=s" in ran.json["error"]["message"]


def test_files_that_are_written(project: Project) -> None:
    """--iidfile and --metadata-file hold the digests of the report."""
    iid, metadata = project.directory / "iid", project.directory / "metadata"
    ran = project.build("--iidfile", str(iid), "--metadata-file", str(metadata), "-t", "app:1")
    written = json.loads(metadata.read_text())

    assert ran.json["image"]["config_digest"] == iid.read_text()
    assert ran.json["image"]["config_digest"] == written["containerimage.config.digest"]
    assert "app:1" in written["image.name"]


def test_a_file_that_cannot_be_written(project: Project) -> None:
    """It is named."""
    ran = project.build("--iidfile", str(project.directory / "no" / "where"))

    assert ran.status in {1, 2}
    assert "where" in ran.json["error"]["message"]


def test_output_to_a_directory(project: Project) -> None:
    """type=local writes the resulting tree."""
    assert {"first.txt": "1", "made.txt": "1", "second.txt": "2"}.items() <= project.made().items()


def test_progress_as_json_lines(project: Project) -> None:
    """--progress json: one object a line on standard error, the report on standard output."""
    ran = project.build("--progress", "json")
    events = [json.loads(line) for line in ran.err.splitlines()]

    assert "BuildStarted" == events[0]["event"]
    assert "BuildFinished" == events[-1]["event"]
    assert ran.json["ok"]


# -- plan ----------------------------------------------------------------------------------------


def snapshot(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Everything below a directory that a write would change."""
    found = {}
    for path in [directory, *directory.rglob("*")]:
        status = path.lstat()
        found[str(path)] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found


def test_plan_writes_nothing(project: Project) -> None:
    """Neither into the cache, when there is one, nor into the context."""
    project.build()
    project.write(second_txt="changed")
    before = snapshot(project.directory)
    for command in ("plan", "explain"):
        ran = project.run(command, "--json")

        assert 0 == ran.status
        assert ["hit", "hit", "would-run"] == ran.decisions
        assert before == snapshot(project.directory)


def test_plan_makes_no_cache(project: Project) -> None:
    """Where there is none yet, none is made."""
    ran = project.plan()

    assert 0 == ran.status
    assert not project.cache.exists()
    assert "would-run" == ran.decisions[0]


def test_plan_runs_nothing(project: Project) -> None:
    """A command that would run is not run; what waits for it is named."""
    mark = project.directory / "mark"
    project.write(Dockerfile=f"FROM x\nRUN touch {mark}\nRUN echo 2\n")
    ran = project.plan()

    assert 0 == ran.status
    assert not mark.exists()
    assert {"would-run", "undetermined"} >= set(ran.decisions)


def test_plan_ends_with_0_whatever_it_finds(project: Project) -> None:
    """Hits, would-run, undetermined: none of it is a failure."""
    project.write(Dockerfile="FROM x\nRUN exit 3\n")

    assert 0 == project.plan().status


def test_plan_for_people(project: Project) -> None:
    """Without --json it is on standard output."""
    ran = project.run("plan")

    assert 0 == ran.status
    assert "would run" in ran.out


def test_explain_says_why(project: Project) -> None:
    """Each step with its reason, down to the file."""
    project.build()
    project.write(second_txt="changed")
    ran = project.run("explain")

    assert 0 == ran.status
    assert "second.txt" in ran.out
    assert "reused" in ran.out


# -- the workspace executor's refusals -------------------------------------------------------------

REFUSED = {
    "USER": "FROM x\nUSER app\nRUN true\n",
    "COPY --chown": "FROM x\nCOPY --chown=1 first.txt /\n",
    "ADD --chown": "FROM x\nADD --chown=1 first.txt /\n",
    "bind mount": "FROM x\nRUN --mount=type=bind,target=/c true\n",
    "cache mount": "FROM x\nRUN --mount=type=cache,target=/c true\n",
    "tmpfs mount": "FROM x\nRUN --mount=type=tmpfs,target=/c true\n",
    "ssh mount": "FROM x\nRUN --mount=type=ssh true\n",
    "no network": "FROM x\nRUN --network=none true\n",
    "insecure": "FROM x\nRUN --security=insecure true\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_workspace_refuses_what_it_can_not_honour(project: Project, name: str) -> None:
    """Status 2, with the line and what to do; nothing has run."""
    project.write(Dockerfile=REFUSED[name])
    ran = project.build()

    assert 2 == ran.status
    assert ran.json["error"]["line"] in {2, 3}
    assert "workspace" in ran.json["error"]["message"]


@pytest.mark.parametrize(
    "options",
    [
        ["--network", "none"],
        ["--add-host", "a:1.2.3.4"],
        ["--shm-size", "1g"],
        ["--ulimit", "nofile=1"],
    ],
    ids=" ".join,
)
def test_workspace_refuses_options(project: Project, options: list[str]) -> None:
    """What the whole build asks for is refused, too, where a command would need it."""
    ran = project.build(*options)

    assert 2 == ran.status
    assert options[0] in ran.json["error"]["message"]


def test_an_image_needs_a_base_that_is_one(project: Project) -> None:
    """There, --output type=oci needs FROM scratch."""
    out = project.directory / "image.tar"
    named = project.build("--output", f"type=oci,dest={out}")
    project.write(Dockerfile="FROM scratch\nCOPY first.txt /\n")
    scratch = project.build("--output", f"type=oci,dest={out}")

    assert 2 == named.status
    assert "FROM scratch" in named.json["error"]["message"]
    assert 0 == scratch.status, scratch.err
    assert out.exists()


@pytest.mark.skipif(os.name != "posix", reason="a mode of POSIX")
def test_an_unreadable_file_of_the_context_is_named(project: Project) -> None:
    """Root reads everything; others get one paragraph."""
    (project.context / "second.txt").chmod(0)
    ran = project.build()

    assert ran.status in {0, 1}
    assert ran.status == 0 or "second.txt" in ran.json["error"]["message"]


def test_the_digest_is_that_of_what_was_pushed(project: Project, tmp_path: Path) -> None:
    """Outputs of other compressions have other manifests; others pull the registry's."""
    name = uuid.uuid4().hex
    project.write(Dockerfile="FROM scratch\nCOPY Dockerfile /\n")
    with registry_server(tmp_path) as host:
        reference = f"{host}/team/{name}:1"
        for order in ([0, 1], [1, 0]):
            metadata = project.directory / "metadata"
            outputs = ["type=registry,compression=gzip", f"type=oci,dest={tmp_path}/image.tar"]
            options = [word for at in order for word in ("--output", outputs[at])]
            ran = project.build(*options, "-t", reference, "--metadata-file", str(metadata))
            assert ran.status == 0
            written = json.loads(metadata.read_text())
            where = f"http://{host}/v2/team/{name}/manifests/1"
            asked = urllib.request.Request(where, headers={"Accept": MANIFEST})
            with urllib.request.urlopen(asked) as answer:
                data = answer.read()
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            assert written["containerimage.digest"] == digest
            assert ran.json["image"]["manifest_digest"] == digest
            assert written["containerimage.descriptor"] == {
                "mediaType": MANIFEST,
                "digest": digest,
                "size": len(data),
            }
            assert written["image.name"] == reference


def test_a_failed_build_leaves_no_files_of_the_one_before(project: Project) -> None:
    """Whoever reads them after it would take the old image for the new one."""
    iid, metadata = project.directory / "iid", project.directory / "metadata"
    options = ("--iidfile", str(iid), "--metadata-file", str(metadata))
    assert project.build(*options).status == 0
    assert iid.exists()
    project.write(Dockerfile="FROM scratch\nCOPY nothing-here /\n")
    assert project.build(*options).status != 0
    assert not iid.exists()
    assert not metadata.exists()


def test_prune_by_label_says_why_it_needs_all(project: Project, call: Callable[..., Ran]) -> None:
    """Without --all only objects without a record go, which no filter selects."""
    project.build()
    cache = str(project.cache)
    refused = call("cache", "prune", "--cache", cache, "--filter", "label=x")
    assert refused.status == 2
    assert "--all" in refused.err
    assert "have no labels" in refused.err
    assert "on request" in call("cache", "prune", "--cache", cache, "--all").out


def test_a_directory_that_is_no_cache_is_named_as_given(
    tmp_path: Path, call: Callable[..., Ran]
) -> None:
    (tmp_path / "file").write_text("")
    assert call("cache", "du", "--cache", str(tmp_path)).err.startswith(
        f"layercache: {str(tmp_path)!r} is not a cache"
    )
