"""Section 9: RUN --mount."""

from __future__ import annotations

from tests.conformance.deriving import build, failing, op, refused, scenario

AB = {"a.txt": "alpha\n", "b.txt": "beta\n"}
DIR = {"d/a.txt": "alpha\n", "d/s/b.txt": "beta\n"}
BIND = "FROM base\nRUN --mount=type=bind,source=d,target=/m find /m -type f | sort > /x\n"

# -- bind -----------------------------------------------------------------------------------

scenario(
    "mount-bind-dir",
    "a bind mount of a directory: its files, and others",
    BIND,
    build(".M", holds={"/x": "/m/a.txt\n/m/s/b.txt\n"}),
    build(".H", op.write("other", "1\n")),
    build(".M", op.write("d/s/b.txt", "B\n")),
    build(".M", op.write("d/new", "1\n"), holds={"/x": "/m/a.txt\n/m/new\n/m/s/b.txt\n"}),
    build(".H", op.touch("d/new", 5)),
    files=DIR,
)
scenario(
    "mount-bind-source-rename",
    "the source gets another name, its content stays",
    "FROM base\nRUN --mount=type=bind,source=a.txt,target=/m cat /m > /x\n",
    build(".M"),
    build(".H", op.rename("a.txt", "z.txt"), op.replace("source=a.txt", "source=z.txt")),
    files=AB,
)
scenario(
    "mount-bind-source-rename-dir",
    "a directory as source gets another name",
    BIND,
    build(".M"),
    build(".H", op.rename("d", "e"), op.replace("source=d", "source=e")),
    files=DIR,
)
scenario(
    "mount-bind-target",
    "another target",
    "FROM base\nRUN --mount=type=bind,source=a.txt,target=/m true\n",
    build(".M"),
    build(".M", op.replace("target=/m", "target=/n")),
    build(".H", op.replace("target=/n", "dst=/m")),
    build(".H", op.replace("dst=/m", "destination=/m")),
    files=AB,
)
scenario(
    "mount-bind-target-relative",
    "a relative target is below the WORKDIR",
    "FROM base\nWORKDIR /w\nRUN --mount=type=bind,source=a.txt,target=m cat /w/m > /x\n",
    build(".MM", holds={"/x": "alpha\n"}),
    build(".HH", op.replace("target=m ", "target=/w/m ")),
    files=AB,
)
scenario(
    "mount-bind-rw",
    "a writable bind mount: what is written does not stay",
    "FROM base\nRUN --mount=type=bind,source=d,target=/m true && echo ok > /x\n",
    build(".M"),
    build(
        ".M",
        op.replace("target=/m true", "target=/m,rw echo new > /m/new && ls /m"),
        holds={"/m/new": None, "/x": "ok\n"},
    ),
    build(".H"),
    files=DIR,
)
scenario(
    "mount-bind-readonly",
    "a bind mount is read-only",
    "FROM base\nRUN --mount=type=bind,source=d,target=/m echo x > /m/a.txt\n",
    failing(".M", "exit code: 1"),
    files=DIR,
)
scenario(
    "mount-bind-mode",
    "the mode of a mounted file",
    "FROM base\nRUN --mount=type=bind,source=a.txt,target=/m ls -l /m > /x\n",
    build(".M"),
    build(".M", op.chmod("a.txt", "0755")),
    build(".H", op.chmod("a.txt", "0644")),
    files=AB,
)
scenario(
    "mount-bind-missing",
    "the source is not there",
    "FROM base\nRUN --mount=type=bind,source=none,target=/m true\n",
    failing(".M", "not found"),
    build(".M", op.write("none", "1\n")),
    files=AB,
)
scenario(
    "mount-bind-from-stage-file",
    "a file of a stage behind a mount: cutoff",
    "FROM base AS b\nCOPY a.txt /a\nRUN tr a-z A-Z < /a > /o\nFROM base\n"
    "RUN --mount=from=b,source=/o,target=/m cat /m > /x\n",
    build(".MM.M", holds={"/x": "ALPHA\n"}),
    build(".MM.H", op.write("a.txt", "ALPHA\n")),
    build(".MM.M", op.write("a.txt", "x\n"), holds={"/x": "X\n"}),
    files=AB,
)
scenario(
    "mount-bind-from-stage-root",
    "the whole of a stage behind a mount: everything in it counts",
    "FROM base AS b\nCOPY a.txt /unread\nRUN echo o > /o\nFROM base\n"
    "RUN --mount=from=b,target=/m cat /m/o > /x\n",
    build(".MM.M", holds={"/x": "o\n"}),
    build(".HH.H"),
    build(".MM.M", op.write("a.txt", "x\n"), holds={"/x": "o\n"}),
    files=AB,
)
scenario(
    "mount-bind-from-image",
    "an image behind a mount",
    "FROM base\nRUN --mount=from=img,source=/f,target=/m cat /m > /x\n",
    build(".M", holds={"/x": "1\n"}),
    build(".H", op.image("img", "FROM base\nRUN echo 1 > /f && echo 2 > /g\n")),
    build(".M", op.image("img", "FROM base\nRUN echo 3 > /f\n"), holds={"/x": "3\n"}),
    images={"img": {"dockerfile": "FROM base\nRUN echo 1 > /f\n"}},
)
scenario(
    "mount-bind-two",
    "two bind mounts; one changes",
    "FROM base\nRUN --mount=source=a.txt,target=/m/a --mount=source=b.txt,target=/m/b "
    "cat /m/a /m/b > /x\n",
    build(".M", holds={"/x": "alpha\nbeta\n"}),
    build(".M", op.write("b.txt", "B\n"), holds={"/x": "alpha\nB\n"}),
    build(".H", op.write("c.txt", "c\n")),
    files=AB,
)
scenario(
    "mount-bind-symlink",
    "a link as the source of a mount",
    "FROM base\nRUN --mount=source=l,target=/m cat /m > /x\n",
    build(".M", holds={"/x": "alpha\n"}),
    build(".M", op.write("a.txt", "new\n"), holds={"/x": "new\n"}),
    files={**AB, "l": {"symlink": "a.txt"}},
)
scenario(
    "mount-bind-ignored",
    "what .dockerignore leaves out is no part of a mount",
    "FROM base\nRUN --mount=target=/m ls -A /m > /x\n",
    build(".M", holds={"/x": ".dockerignore\nDockerfile\na.txt\n"}),
    build(".H", op.write("b.txt", "x\n")),
    files={**AB, ".dockerignore": "b.txt\n"},
)
scenario(
    "mount-bind-env-counts",
    "beside a mount the environment still counts",
    "FROM base\nENV E=1\nRUN --mount=source=a.txt,target=/m cat /m > /x\n",
    build("..M"),
    build("..M", op.replace("E=1", "E=2")),
    build("..H", op.replace("E=2", "E=1")),
    files=AB,
)
scenario(
    "mount-bind-dir-target-stays",
    "the mount point stays as an empty directory",
    "FROM base\nRUN --mount=source=d,target=/made/m true\n",
    build(".M", holds={"/made/m/a.txt": None}),
    build(".H"),
    files=DIR,
)
scenario(
    "mount-option-order",
    "the order of options within a mount",
    "FROM base\nRUN --mount=type=bind,source=a.txt,target=/m cat /m > /x\n",
    build(".M"),
    build(".H", op.replace("type=bind,source=a.txt,target=/m", "target=/m,source=a.txt,type=bind")),
    build(".H", op.replace("target=/m,source=a.txt,type=bind", "target=/m,src=a.txt")),
    build(".H", op.replace("target=/m,src=a.txt", "ro,target=/m,src=./a.txt")),
    files=AB,
)
scenario(
    "mount-added",
    "a mount is added to a command, and taken away",
    "FROM base\nRUN echo a > /x\n",
    build(".M"),
    build(".M", op.replace("RUN echo", "RUN --mount=source=a.txt,target=/m echo")),
    build(".H", op.replace("--mount=source=a.txt,target=/m ", "")),
    files=AB,
)
scenario(
    "mount-unknown",
    "mounts that are none",
    "FROM base\nRUN --mount=type=nothing,target=/m true\n",
    refused("unsupported mount type"),
    refused("unexpected key", op.replace("type=nothing", "colour=red")),
    refused("invalid mount target", op.replace("colour=red,target=/m", "type=bind,target=/")),
    files=AB,
)

# -- cache ----------------------------------------------------------------------------------

CACHE = "FROM base\nRUN --mount=type=cache,id=@SALT@,target=/c echo hi > /x\n"
scenario(
    "mount-cache-target",
    "the target of a cache mount",
    CACHE,
    build(".M"),
    build(".M", op.replace("target=/c", "target=/d")),
    build(".H", op.replace("target=/d", "target=/c")),
)
scenario(
    "mount-cache-default-id",
    "without an id it is the target",
    "FROM base\nARG N=1\nRUN --mount=type=cache,target=/c/@SALT@ echo $N >> /c/@SALT@/l; "
    "cp /c/@SALT@/l /x\n",
    build("..M", holds={"/x": "1\n"}),
    build("..M", args={"N": "2"}, holds={"/x": "1\n2\n"}),
    build("..H", holds={"/x": "1\n"}),
)
scenario(
    "mount-cache-gid",
    "the group of a cache mount",
    CACHE,
    build(".M"),
    build(".M", op.replace("target=/c", "target=/c,gid=5")),
    build(".M", op.replace("gid=5", "gid=6")),
    build(".H", op.replace("gid=6", "gid=5")),
)
scenario(
    "mount-cache-owner-seen",
    "mode and owner of a new cache directory",
    "FROM base\nRUN --mount=type=cache,id=@SALT@,target=/c,mode=0700,uid=1000,gid=1001 "
    "stat -c '%a %u %g' /c > /x\n",
    build(".M", holds={"/x": "700 1000 1001\n"}),
    build(".H"),
)
scenario(
    "mount-cache-shared-between",
    "two commands share a cache",
    "FROM base\nRUN --mount=type=cache,id=@SALT@,target=/c echo 1 > /c/f\n"
    "RUN --mount=type=cache,id=@SALT@,target=/d cat /d/f > /x\n",
    build(".MM", holds={"/x": "1\n", "/c/f": None, "/d/f": None}),
    build(".HH"),
)
scenario(
    "mount-cache-readonly",
    "a read-only cache mount",
    CACHE,
    build(".M"),
    build(".M", op.replace("target=/c", "target=/c,ro")),
    failing(".M", "exit code: 1", op.replace("echo hi > /x", "echo hi > /c/x")),
)
scenario(
    "mount-cache-from-stage",
    "a cache that starts with the content of a stage: that counts",
    "FROM base AS seed\nRUN mkdir /s && echo 1 > /s/f\nFROM base\n"
    "RUN --mount=type=cache,id=@SALT@,from=seed,source=/s,target=/c cat /c/f > /x\n",
    build(".M.M", holds={"/x": "1\n"}),
    build(".H.H"),
    build(".M.M", op.replace("echo 1", "echo 2")),
)
scenario(
    "mount-cache-no-cache",
    "--no-cache starts with an empty cache",
    "FROM base\nRUN --mount=type=cache,id=@SALT@,target=/c echo x >> /c/l; wc -l < /c/l > /n\n",
    build(".M", holds={"/n": "1\n"}),
    build(".M", no_cache=True, holds={"/n": "1\n"}),
    build(".M", op.replace("echo x", "echo y"), holds={"/n": "2\n"}),
)
scenario(
    "mount-cache-parent-step",
    "a changed step before a cache mount reruns it with what the cache holds",
    "FROM base\nCOPY a.txt /a\n"
    "RUN --mount=type=cache,id=@SALT@,target=/c cat /a >> /c/l; cp /c/l /n\n",
    build(".MM", holds={"/n": "alpha\n"}),
    build(".MM", op.write("a.txt", "2\n"), holds={"/n": "alpha\n2\n"}),
    build(".HH", op.write("a.txt", "alpha\n"), holds={"/n": "alpha\n"}),
    files=AB,
)

# -- tmpfs, secret, ssh ---------------------------------------------------------------------

scenario(
    "mount-tmpfs-writes",
    "what is written to a tmpfs is gone",
    "FROM base\nRUN --mount=type=tmpfs,target=/t echo a > /t/f && cat /t/f > /x\n",
    build(".M", holds={"/x": "a\n", "/t/f": None}),
    build(".H"),
)
scenario(
    "mount-tmpfs-over",
    "a tmpfs over files of the image hides them",
    "FROM base\nCOPY d /d\nRUN --mount=type=tmpfs,target=/d ls /d > /x; echo end >> /x\n",
    build(".MM", holds={"/x": "end\n", "/d/a.txt": "alpha\n"}),
    build(".HH"),
    files=DIR,
)
scenario(
    "mount-secret-missing",
    "a secret that is not given, then is",
    "FROM base\nRUN --mount=type=secret,id=s "
    "cat /run/secrets/s > /x 2>/dev/null || echo none > /x\n",
    build(".M", holds={"/x": "none\n"}),
    build(".H", secrets={"s": "one"}, holds={"/x": "none\n"}),
)
scenario(
    "mount-secret-missing-after",
    "a build without the secret hits one with it",
    "FROM base\nRUN --mount=type=secret,id=s "
    "cat /run/secrets/s > /x 2>/dev/null || echo none > /x\n",
    build(".M", secrets={"s": "one"}, holds={"/x": "one"}),
    build(".H", holds={"/x": "one"}),
)
scenario(
    "mount-secret-required",
    "a required secret",
    "FROM base\nRUN --mount=type=secret,id=s,required cat /run/secrets/s > /x\n",
    failing(".M", "secret s: not found"),
    build(".M", secrets={"s": "one"}, holds={"/x": "one"}),
    build(".H", holds={"/x": "one"}),
    failing(".M", "secret s: not found", no_cache=True),
)
scenario(
    "mount-secret-id",
    "another id",
    "FROM base\nRUN --mount=type=secret,id=s,target=/t cat /t > /x\n",
    build(".M", secrets={"s": "one", "r": "two"}, holds={"/x": "one"}),
    build(".M", op.replace("id=s", "id=r"), secrets={"s": "one", "r": "two"}, holds={"/x": "two"}),
)
scenario(
    "mount-secret-target",
    "another target",
    "FROM base\nRUN --mount=type=secret,id=s,target=/t ls /t /u > /x 2>/dev/null; true\n",
    build(".M", secrets={"s": "one"}, holds={"/x": "/t\n"}),
    build(".M", op.replace("target=/t", "target=/u"), secrets={"s": "one"}, holds={"/x": "/u\n"}),
)
scenario(
    "mount-secret-mode",
    "mode and owner of a secret",
    "FROM base\nRUN --mount=type=secret,id=s,target=/t,mode=0440,uid=1000,gid=1001 "
    "stat -c '%a %u %g' /t > /x\n",
    build(".M", secrets={"s": "one"}, holds={"/x": "440 1000 1001\n"}),
    build(
        ".M",
        op.replace("mode=0440", "mode=0400"),
        secrets={"s": "one"},
        holds={"/x": "400 1000 1001\n"},
    ),
)
scenario(
    "mount-secret-env-and-file",
    "a secret as a variable and as a file",
    'FROM base\nRUN --mount=type=secret,id=s,env=V,target=/t echo "$V $(cat /t)" > /x\n',
    build(".M", secrets={"s": "one"}, holds={"/x": "one one\n"}),
    build(".H", secrets={"s": "two"}, holds={"/x": "one one\n"}),
)
scenario(
    "mount-secret-not-in-image",
    "a secret leaves nothing behind",
    "FROM base\nRUN --mount=type=secret,id=s,target=/a/b/secret wc -c < /a/b/secret > /x\n",
    build(".M", secrets={"s": "hush"}, holds={"/x": "4\n"}),
    build(".H", secrets={"s": "other"}),
)
scenario(
    "mount-secret-toggle",
    "a secret mount is added and removed",
    "FROM base\nRUN echo a > /x\n",
    build(".M"),
    build(".M", op.replace("RUN echo", "RUN --mount=type=secret,id=s echo"), secrets={"s": "1"}),
    build(".H", op.replace("--mount=type=secret,id=s ", "")),
)
scenario(
    "mount-ssh-toggle",
    "an ssh mount is added and removed",
    "FROM base\nRUN echo a > /x\n",
    build(".M"),
    build(".M", op.replace("RUN echo", "RUN --mount=type=ssh echo")),
    build(".H", op.replace("--mount=type=ssh ", "")),
)
scenario(
    "mount-ssh-required",
    "a required agent that is not there",
    "FROM base\nRUN --mount=type=ssh,required echo a > /x\n",
    failing(".M", "unset ssh forward key default"),
)
scenario(
    "mount-order-three",
    "three mounts in another order",
    "FROM base\nRUN --mount=type=tmpfs,target=/t --mount=type=bind,source=a.txt,target=/m "
    "--mount=type=secret,id=s cat /m > /x\n",
    build(".M", secrets={"s": "1"}),
    build(
        ".H",
        op.replace(
            "--mount=type=tmpfs,target=/t --mount=type=bind,source=a.txt,target=/m "
            "--mount=type=secret,id=s",
            "--mount=type=secret,id=s --mount=type=bind,source=a.txt,target=/m "
            "--mount=type=tmpfs,target=/t",
        ),
        secrets={"s": "1"},
    ),
    files=AB,
)
scenario(
    "mount-nested",
    "a mount below a mount",
    "FROM base\nRUN --mount=type=tmpfs,target=/t --mount=type=bind,source=a.txt,target=/t/a "
    "cat /t/a > /x\n",
    build(".M", holds={"/x": "alpha\n"}),
    build(".M", op.write("a.txt", "2\n"), holds={"/x": "2\n"}),
    files=AB,
)
scenario(
    "mount-from-variable",
    "from takes no variables",
    "FROM base AS one\nFROM base\nARG S=one\nRUN --mount=from=$S,target=/m true\n",
    refused("'from' doesn't support variable expansion, define alias stage instead"),
)
scenario(
    "mount-security-unknown",
    "a security mode that is none",
    "FROM base\nRUN --security=lax echo a\n",
    refused('security "lax" is not valid'),
)
