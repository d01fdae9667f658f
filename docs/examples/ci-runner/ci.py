"""A custom build system: a CI runner that shares a cache and spreads steps over Dask.

Every job builds with the same cache somewhere else (an S3 bucket, a registry, a directory), so
that no machine runs what another one has run. Where Dask is installed its workers carry the
steps; they must see the same local cache directory.

    python ci.py DOCKERFILE CONTEXT --local DIR --shared s3://bucket/cache [--workers N]
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

from layercache import Builder, BuildResult, Dockerfile, Workspace, open_store
from layercache.reports import markdown_summary


@contextlib.contextmanager
def workers(count: int) -> Iterator[Executor | None]:
    """Dask's workers as a `concurrent.futures.Executor`; None runs the steps here."""
    if count == 0:
        yield None
        return
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client.get_executor()


def run(
    dockerfile: str, context: str, *, local: str, shared: Sequence[str], count: int = 0
) -> BuildResult:
    """One job: read what others built, build the rest, share it."""
    store = open_store(f"{local}/cache", cache_from=shared, cache_to=shared)
    with workers(count) as pool:
        builder = Builder(store, executor=Workspace(f"{local}/workspace"), pool=pool, jobs=4)
        result = builder.build(Dockerfile.load(dockerfile), context=context, project="ci")
        store.close()  # waits for what is still being sent
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("dockerfile")
    parser.add_argument("context")
    parser.add_argument("--local", required=True)
    parser.add_argument("--shared", action="append", default=[])
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    done = run(
        options.dockerfile,
        options.context,
        local=options.local,
        shared=options.shared,
        count=options.workers,
    )
    print(markdown_summary(done.report, "Build"))
