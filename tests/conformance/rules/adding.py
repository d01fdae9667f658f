"""Sections 4.9 and 11: ADD of archives and of URLs."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import struct
import tarfile
from typing import Any

from tests.conformance.deriving import build, failing, op, refused, scenario

TAR = {"in.txt": "one\n", "sub/x": "two\n"}
ADD = "FROM base\nADD t.tar /t/\nRUN find /t | sort > /out\n"
LISTED = "/t\n/t/in.txt\n/t/sub\n/t/sub/x\n"


def plain(members: dict[str, str], mtime: int = 1700000000) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(content), mtime, 0o644
            archive.addfile(info, io.BytesIO(content.encode()))
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    """A frame of raw blocks (RFC 8878, 3.1): valid, and made without a library."""
    out = b"\x28\xb5\x2f\xfd" + bytes([0xA0]) + struct.pack("<I", len(data))
    blocks = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    for number, block in enumerate(blocks):
        out += struct.pack("<I", (len(block) << 3) | (number == len(blocks) - 1))[:3] + block
    return out


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


FORMS: dict[str, Any] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
}
for form, pack in FORMS.items():
    scenario(
        f"add-tar-{form}",
        f"a {form} archive is unpacked, whatever its name",
        "FROM base\nADD archive /t/\nRUN find /t | sort > /out\n",
        build(".MM", holds={"/out": LISTED, "/t/in.txt": "one\n"}),
        build(".HH"),
        build(
            ".MM",
            op.write("archive", b64(pack(plain({**TAR, "in.txt": "ONE\n"})))),
            holds={"/t/in.txt": "ONE\n"},
        ),
        files={"archive": b64(pack(plain(TAR)))},
        area="add",
    )
scenario(
    "add-tar-other-compression",
    "the same archive in another form: other bytes",
    "FROM base\nADD archive /t/\nRUN find /t | sort > /out\n",
    build(".MM", holds={"/out": LISTED}),
    build(".MM", op.write("archive", b64(lzma.compress(plain(TAR)))), holds={"/out": LISTED}),
    files={"archive": b64(plain(TAR))},
    area="add",
)
scenario(
    "add-tar-recompressed",
    "another level of compression",
    ADD,
    build(".MM", holds={"/out": LISTED}),
    build(".MM", op.write("t.tar", {"tar": TAR, "gzip": 1}), holds={"/out": LISTED}),
    files={"t.tar": {"tar": {**TAR}, "gzip": 9}},
    area="add",
)
scenario(
    "add-tar-order",
    "the order of members",
    ADD,
    build(".MM", holds={"/out": LISTED}),
    build(
        ".MM",
        op.write("t.tar", {"tar": {"sub/x": "two\n", "in.txt": "one\n"}}),
        holds={"/out": LISTED},
    ),
    files={"t.tar": {"tar": TAR}},
    area="add",
)
scenario(
    "add-tar-mode",
    "a mode inside the archive",
    ADD,
    build(".MM", holds={"/t/in.txt": {"type": "file", "mode": "0644"}}),
    build(
        ".MM",
        op.write("t.tar", {"tar": {"in.txt": {"content": "one\n", "mode": "0750"}}}),
        holds={"/t/in.txt": {"type": "file", "mode": "0750"}},
    ),
    files={"t.tar": {"tar": TAR}},
    area="add",
)
scenario(
    "add-tar-links",
    "links, hard links and directories of an archive",
    "FROM base\nADD t.tar /t\n",
    build(
        ".M",
        holds={
            "/t/d": {"type": "dir", "mode": "0700"},
            "/t/l": {"type": "symlink", "target": "d/f"},
            "/t/h": "1\n",
        },
    ),
    build(".H"),
    files={
        "t.tar": {
            "tar": {
                "d": {"dir": True, "mode": "0700"},
                "d/f": "1\n",
                "l": {"symlink": "d/f"},
                "h": {"hardlink": "d/f"},
            }
        }
    },
    area="add",
)
scenario(
    "add-tar-over-files",
    "an archive over files that are there",
    "FROM base\nCOPY d /t\nADD t.tar /t\nRUN find /t | sort > /out\n",
    build(".MMM", holds={"/out": LISTED + "/t/y\n", "/t/in.txt": "one\n"}),
    build(".MMM", op.write("d/y", "Y\n")),
    files={"t.tar": {"tar": TAR}, "d/in.txt": "old\n", "d/y": "y\n"},
    area="add",
)
scenario(
    "add-not-a-tar",
    "a compressed file that is no archive is copied",
    "FROM base\nADD f.gz /t/\nRUN ls /t > /out\n",
    build(".MM", holds={"/out": "f.gz\n"}),
    build(".MM", op.write("f.gz", b64(gzip.compress(b"other", mtime=0)))),
    files={"f.gz": b64(gzip.compress(b"no archive", mtime=0))},
    area="add",
)
scenario(
    "add-empty-file",
    "an empty file is no archive",
    "FROM base\nADD t.tar /t/\nRUN ls /t > /out\n",
    build(".MM", holds={"/out": "t.tar\n"}),
    build(".MM", op.write("t.tar", {"tar": TAR}), holds={"/t/in.txt": "one\n"}),
    files={"t.tar": ""},
    area="add",
)
scenario(
    "add-tar-in-dir",
    "an archive within an added directory is copied",
    "FROM base\nADD d /t/\nRUN ls /t > /out\n",
    build(".MM", holds={"/out": "t.tar\n"}),
    build(".HH"),
    files={"d/t.tar": {"tar": TAR}},
    area="add",
)
scenario(
    "add-directory",
    "ADD of a directory is that of its contents",
    "FROM base\nADD d /t/\nRUN find /t | sort > /out\n",
    build(".MM", holds={"/out": "/t\n/t/a\n/t/s\n/t/s/b\n"}),
    build(".HH", op.touch("d/a", 1)),
    build(".MM", op.write("d/s/b", "B\n")),
    files={"d/a": "1\n", "d/s/b": "2\n"},
    area="add",
)
scenario(
    "add-unpack-false",
    "ADD --unpack=false",
    ADD,
    build(".MM", holds={"/out": LISTED}),
    build(
        ".MM", op.replace("ADD t.tar", "ADD --unpack=false t.tar"), holds={"/out": "/t\n/t/t.tar\n"}
    ),
    build(".HH", op.replace("--unpack=false", "--unpack=true"), holds={"/out": LISTED}),
    files={"t.tar": {"tar": TAR}},
    area="add",
)
scenario(
    "add-tar-chown",
    "ADD --chown of an archive",
    "FROM base\nADD --chown=1000:1001 t.tar /t/\n",
    build(".M", holds={"/t/in.txt": {"type": "file", "uid": 1000, "gid": 1001}}),
    build(".M", op.replace("1000:1001", "0:0"), holds={"/t/in.txt": {"type": "file", "uid": 0}}),
    files={"t.tar": {"tar": TAR}},
    area="add",
)
scenario(
    "add-tar-escape",
    "an archive that leads out of the destination is refused (Docker takes it)",
    "FROM base\nADD t.tar /t/\n",
    failing(".M", "leads outside"),
    files={"t.tar": {"tar": {"../../evil": "1\n"}}},
    area="add",
)
scenario(
    "add-tar-absolute",
    "absolute names in an archive are below the destination",
    "FROM base\nADD t.tar /t/\n",
    build(".M", holds={"/t/etc/x": "1\n", "/t/y": "1\n", "/etc/x": None}),
    files={"t.tar": {"tar": {"/etc/x": "1\n", "/y": {"hardlink": "/etc/x"}}}},
    area="add",
)
scenario(
    "add-tar-glob-single",
    "an archive by a pattern",
    "FROM base\nADD *.tar /t/\nRUN find /t | sort > /out\n",
    build(".MM", holds={"/out": LISTED}),
    build(".HH", op.write("x.txt", "1\n")),
    build(".MM", op.write("u.tar", {"tar": {"u": "u\n"}}), holds={"/out": LISTED + "/t/u\n"}),
    files={"t.tar": {"tar": TAR}},
    area="add",
)
scenario(
    "add-tar-symlink",
    "a link to an archive",
    "FROM base\nADD l /t/\nRUN find /t | sort > /out\n",
    build(".MM", holds={"/out": LISTED}),
    build(".MM", op.write("t.tar", {"tar": {"in.txt": "x\n"}}), holds={"/t/in.txt": "x\n"}),
    files={"t.tar": {"tar": TAR}, "l": {"symlink": "t.tar"}},
    area="add",
)

# -- URLs -----------------------------------------------------------------------------------

URL = "FROM base\nADD @HTTP@/f.txt /f.txt\nRUN cat /f.txt > /out\n"
ONE = {"/f.txt": {"content": "one\n", "etag": '"v1-@SALT@"'}}
SUM_ONE = "sha256:2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806"
SUM_TWO = "sha256:27dd8ed44a83ff94d557f9fd0412ed5a8cbca69ea04922d88c01184a07300a5a"
scenario(
    "http-same",
    "nothing changes at the URL",
    URL,
    build(".MM", holds={"/out": "one\n", "/f.txt": {"type": "file", "mode": "0600", "uid": 0}}),
    build(".HH"),
    build(".HH"),
    http=ONE,
)
scenario(
    "http-content-changes",
    "content and ETag change, and change back",
    URL,
    build(".MM"),
    build(".MM", op.http("/f.txt", content="two\n", etag='"v2-@SALT@"'), holds={"/out": "two\n"}),
    build(".HH", op.http("/f.txt", content="one\n", etag='"v1-@SALT@"'), holds={"/out": "one\n"}),
    http=ONE,
)
scenario(
    "http-lastmod-changes",
    "only Last-Modified changes",
    URL,
    build(".MM"),
    build(".HH", op.http("/f.txt", last_modified="Wed, 15 Nov 2023 22:13:20 GMT")),
    http={"/f.txt": {"content": "one\n", "last_modified": "Tue, 14 Nov 2023 22:13:20 GMT"}},
)
scenario(
    "http-etag-removed",
    "the ETag goes, the content stays, then changes",
    URL,
    build(".MM"),
    build(".HH", op.http("/f.txt", unset=["etag"])),
    build(".MM", op.http("/f.txt", content="two\n"), holds={"/out": "two\n"}),
    http=ONE,
)
scenario(
    "http-query-change",
    "another query with equal content",
    "FROM base\nADD @HTTP@/f.txt?v=1 /f.txt\nRUN cat /f.txt > /out\n",
    build(".MM"),
    build(".HH", op.replace("?v=1", "?v=2")),
    build(".HH", op.replace("?v=2", "")),
    http=ONE,
)
scenario(
    "http-url-directory-change",
    "another directory in the URL, the same name and content",
    "FROM base\nADD @HTTP@/one/f.txt /f.txt\nRUN cat /f.txt > /out\n",
    build(".MM"),
    build(".HH", op.replace("/one/", "/two/")),
    build(".MM", op.http("/two/f.txt", content="2\n"), holds={"/out": "2\n"}),
    http={"/one/f.txt": {"content": "1\n"}, "/two/f.txt": {"content": "1\n"}},
)
scenario(
    "http-name",
    "the name at the destination comes from the URL",
    "FROM base\nADD @HTTP@/a/b%20c.txt?x=/y /d/\nADD @HTTP@/dir/ /e/\nADD @HTTP@ /g/\n"
    "RUN ls /d /e /g > /out\n",
    build(
        ".MMMM",
        holds={"/d/b c.txt": "one\n", "/e/dir": "two\n", "/g/__unnamed__": "three\n"},
    ),
    build(".HHHH"),
    http={
        "/a/b%20c.txt": {"content": "one\n"},
        "/dir/": {"content": "two\n"},
        "/": {"content": "three\n"},
        "": {"content": "three\n"},
    },
)
scenario(
    "http-404",
    "the URL is gone",
    URL,
    build(".MM"),
    refused("404 Not Found", op.http("/f.txt", delete=True)),
    build(".HH", op.http("/f.txt", content="one\n", etag='"v3-@SALT@"')),
    http=ONE,
)
scenario(
    "http-checksum-added",
    "--checksum is added, changed with the content, removed",
    URL,
    build(".MM"),
    build(".HH", op.replace("ADD @", f"ADD --checksum={SUM_ONE} @")),
    build(
        ".MM",
        op.replace(SUM_ONE, SUM_TWO),
        op.http("/f.txt", content="two\n", etag='"v2-@SALT@"'),
        holds={"/out": "two\n"},
    ),
    http=ONE,
)
scenario(
    "http-checksum-mismatch-later",
    "the content changes under --checksum where nothing is cached",
    f"FROM base\nADD --checksum={SUM_ONE} @HTTP@/f.txt /f.txt\n",
    refused("digest mismatch"),
    build(".M", op.http("/f.txt", content="one\n"), holds={"/f.txt": "one\n"}),
    build(".H", op.http("/f.txt", content="two\n"), holds={"/f.txt": "one\n"}),
    http={"/f.txt": {"content": "two\n"}},
)
scenario(
    "http-checksum-malformed",
    "a checksum that is none",
    "FROM base\nADD --checksum=sha256:12 @HTTP@/f.txt /f.txt\n",
    refused("invalid checksum digest length"),
    http=ONE,
)
scenario(
    "http-chmod",
    "--chmod of a URL changes",
    "FROM base\nADD --chmod=644 @HTTP@/f.txt /f.txt\n",
    build(".M", holds={"/f.txt": {"type": "file", "mode": "0644"}}),
    build(".M", op.replace("644", "755"), holds={"/f.txt": {"type": "file", "mode": "0755"}}),
    build(".M", op.replace("--chmod=755 ", ""), holds={"/f.txt": {"type": "file", "mode": "0600"}}),
    http=ONE,
)
scenario(
    "http-chown",
    "--chown of a URL",
    "FROM base\nADD --chown=app:app @HTTP@/f.txt /f.txt\n",
    build(".M", holds={"/f.txt": {"type": "file", "uid": 1000, "gid": 1000}}),
    build(".M", op.replace("app:app", "other"), holds={"/f.txt": {"type": "file", "uid": 1001}}),
    http=ONE,
)
scenario(
    "http-tar-not-unpacked",
    "an archive from a URL stays packed, unless --unpack",
    "FROM base\nADD @HTTP@/t.tar /t/\nRUN ls /t > /out\n",
    build(".MM", holds={"/out": "t.tar\n"}),
    build(".HH"),
    http={"/t.tar": {"content": plain(TAR).decode()}},
)
scenario(
    "http-unpack",
    "ADD --unpack of a URL",
    "FROM base\nADD --unpack=true @HTTP@/t.tar /t/\nRUN find /t | sort > /out\n",
    build(".MM", holds={"/out": LISTED}),
    build(".HH"),
    build(".MM", op.replace("--unpack=true ", ""), holds={"/out": "/t\n/t/t.tar\n"}),
    http={"/t.tar": {"content": plain(TAR).decode()}},
)
scenario(
    "http-beside-file",
    "a URL and a file in one ADD",
    "FROM base\nADD @HTTP@/f.txt a.txt /d/\nRUN ls /d > /out\n",
    build(".MM", holds={"/out": "a.txt\nf.txt\n"}),
    build(".MM", op.write("a.txt", "x\n")),
    build(".MM", op.http("/f.txt", content="two\n", etag='"v2-@SALT@"')),
    files={"a.txt": "alpha\n"},
    http=ONE,
)
scenario(
    "http-two-stages",
    "one URL in two stages",
    "FROM base AS one\nADD @HTTP@/f.txt /f.txt\nFROM base\nADD @HTTP@/f.txt /g.txt\n"
    "COPY --from=one /f.txt /h.txt\n",
    build(".M.MM", holds={"/g.txt": "one\n", "/h.txt": "one\n"}),
    build(".H.HH"),
    build(".M.MM", op.http("/f.txt", content="two\n", etag='"v2-@SALT@"')),
    http=ONE,
)
scenario(
    "http-copy",
    "COPY takes no URL",
    "FROM base\nCOPY @HTTP@/f.txt /f.txt\n",
    refused("source can't be a URL for COPY"),
    http=ONE,
)
scenario(
    "http-unused-stage",
    "a URL that is gone, in a stage that nothing needs",
    "FROM base AS x\nADD @HTTP@/none /none\nFROM base\nRUN echo a > /x\n",
    build(".S.M"),
    build(".S.H"),
    http=ONE,
)
scenario(
    "http-link",
    "ADD --link of a URL under a changed command",
    "FROM base\nRUN echo one > /one\nADD --link @HTTP@/f.txt /f.txt\n",
    build(".MM"),
    build(".MH", op.replace("echo one", "echo 1"), holds={"/f.txt": "one\n", "/one": "1\n"}),
    http=ONE,
)
