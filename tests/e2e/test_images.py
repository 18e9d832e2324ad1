"""Images on a real kernel: overlay mounts, whiteouts, bases from packages, Dockerfile builds."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dure.images.archive import write_layer
from dure.images.errors import BuildFailed, DockerfileError
from dure.images.extract import OPAQUE, extract_layer
from dure.images.kernel import unmount
from dure.images.layers import mounts_below
from dure.images.model import Image
from dure.images.service import ImageStore, open_store
from dure.images.workshop import open_workspace

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """One data folder for the file: the bases in it are made once."""
    folder = Path(tempfile.mkdtemp(prefix="dure-images-", dir="/var/tmp"))
    try:
        yield folder
    finally:
        for mounted in mounts_below(folder):
            unmount(mounted)
        shutil.rmtree(folder)


@pytest.fixture
def store(home: Path) -> ImageStore:
    return open_store(home, stand_ins=True)


def write(context: Path, dockerfile: str, **files: str) -> Path:
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text(dockerfile)
    for name, text in files.items():
        (context / name.replace("__", ".")).write_text(text)
    return context


async def read(store: ImageStore, image: Image, *paths: str) -> list[str]:
    """The text of files in the image."""
    root = Path(await store.mount(image, "reader"))
    try:
        return [(root / path).read_text() for path in paths]
    finally:
        await store.unmount("reader")


async def test_busybox_is_mounted_written_to_and_forgotten(store: ImageStore) -> None:
    image = await store.pull("busybox")
    assert (image.stand_in, image.reference, image.cmd) == (True, "docker.io/library/busybox:latest", ("sh",))
    root = Path(await store.mount(image, "c1"))
    assert (root / "bin/busybox").stat().st_size > 500_000
    (root / "written").write_text("here")
    assert await store.mount(image, "c1") == str(root)
    assert (root / "written").exists()
    other = Path(await open_store(store.content.root.parent, stand_ins=True).mount(image, "c2"))
    assert not (other / "written").exists()
    for container in ("c1", "c1", "c2"):
        await store.unmount(container)
    assert not root.exists() and mounts_below(store.content.root) == []


async def test_image_in_use_survives_removal_until_its_container_ends(store: ImageStore, tmp_path: Path) -> None:
    await store.build(write(tmp_path / "c", "FROM busybox\nCOPY f /f", f="content"), tag="held:1")
    image = await store.find("held:1")
    assert image is not None
    root = Path(await store.mount(image, "holder"))
    await store.remove("held:1")
    await store.prune(drop_build_cache=True)
    assert (root / "f").read_text() == "content"
    assert await store.sweep(alive=[]) == ["holder"]
    assert await store.prune() > 0


async def test_many_layers_are_mounted(store: ImageStore) -> None:
    """More than fit into the one page of mount options."""
    content = store.content
    diff_ids = []
    for number in range(130):
        with content.layers.scratch() as folder:
            (folder / f"f{number}").write_text(str(number))
            diff_ids.append(content.layers.adopt(folder).diff_id)
    image = content.commit(None, {}, [*diff_ids, diff_ids[0]], origin="build").as_image("x", size=0, stand_in=False)
    root = Path(await store.mount(image, "deep"))
    assert len(list(root.iterdir())) == 130
    await store.unmount("deep")


async def test_whiteouts_go_through_a_layer_tar(store: ImageStore, tmp_path: Path) -> None:
    content = store.content
    with content.layers.scratch() as folder:
        for name in ("keep", "gone", "dir/old"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(name)
        below = content.layers.adopt(folder).diff_id
    async with open_workspace(content, [below]) as workspace:
        (workspace.root / "gone").unlink()
        shutil.rmtree(workspace.root / "dir")
        (workspace.root / "dir").mkdir()
        (workspace.root / "dir/new").write_text("new")
        layer = await workspace.seal()
    assert layer is not None
    pieces: list[bytes] = []
    write_layer(content.layers.path(layer.diff_id), pieces.append)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        assert sorted(tar.getnames()) == [".wh.gone", "dir", "dir/.wh..wh..opq", "dir/new"]
    extract_layer(io.BytesIO(b"".join(pieces)), tmp_path)
    device = (tmp_path / "gone").stat()
    assert stat.S_ISCHR(device.st_mode) and device.st_rdev == 0
    assert os.getxattr(tmp_path / "dir", OPAQUE) == b"y"


async def test_dockerfile_is_built_and_then_cached(store: ImageStore, tmp_path: Path) -> None:
    text = """
        ARG TAG=latest
        FROM busybox:${TAG} AS one
        ARG WHO=world
        ENV GREETING="hello ${WHO}"
        WORKDIR /work
        COPY *.txt sub/
        RUN echo "$GREETING" > greeting && rm /etc/group
        FROM one
        COPY --from=one --chown=33:33 --chmod=640 /work/greeting /copied/
        USER nobody
        RUN id -u > /tmp/me
        ENTRYPOINT ["cat"]
        CMD ["/copied/greeting"]
    """
    context = write(tmp_path / "c", text, a__txt="a", b__txt="b", c__log="c", __dockerignore="b.txt")
    image = await store.build(context, tag="built:1", arguments={"WHO": "you"})
    assert (image.entrypoint, image.cmd, image.user, image.working_dir) == (
        ("cat",),
        ("/copied/greeting",),
        "nobody",
        "/work",
    )
    assert await read(store, image, "copied/greeting", "tmp/me") == ["hello you\n", "65534\n"]
    root = Path(await store.mount(image, "look"))
    copied = (root / "copied/greeting").stat()
    assert (copied.st_uid, copied.st_gid, copied.st_mode & 0o777) == (33, 33, 0o640)
    assert [path.name for path in (root / "work/sub").iterdir()] == ["a.txt"]
    assert not (root / "etc/group").exists() and not (root / "etc/resolv.conf").exists()
    await store.unmount("look")
    lines: list[str] = []
    again = await store.build(context, tag="built:2", arguments={"WHO": "you"}, progress=lines.append)
    assert (again.id, lines.count("  cached")) == (image.id, 4)
    changed = await store.build(context, tag="built:3", arguments={"WHO": "them"})
    assert changed.id != image.id


async def test_failing_step_names_its_line_and_shows_its_output(store: ImageStore, tmp_path: Path) -> None:
    context = write(tmp_path / "c", "FROM busybox\n\nRUN echo before && \\\n  false-command\n")
    with pytest.raises(BuildFailed) as failed:
        await store.build(context, tag="bad")
    text = str(failed.value)
    assert failed.value.line == 3
    assert text.startswith("Dockerfile line 3: RUN echo before && false-command: exit code 127\nbefore\n")
    assert "false-command: not found" in text
    assert await store.find("bad") is None
    assert list((store.content.root / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("dockerfile", "error", "words"),
    [
        ("FROM busybox\nCOPY ../secret /", BuildFailed, "outside the build context"),
        ("FROM busybox\nCOPY nothing /", BuildFailed, '"/nothing": not found'),
        ("FROM busybox\nUSER nosuch\nRUN id", BuildFailed, "unable to find user nosuch"),
        ("FROM busybox\nCOPY --chown=nosuch Dockerfile /", BuildFailed, "unable to find user nosuch"),
        ("FROM busybox\nRUN --mount=type=secret,target=/x true", DockerfileError, "not supported"),
        ("FROM registry.invalid/x\nRUN true", BuildFailed, "line 1: registry.invalid/x: failed to pull"),
        ("FROM scratch\nRUN true", BuildFailed, "line 2"),
        ("FROM busybox\nEXPOSE 99999", DockerfileError, "invalid containerPort"),
    ],
)
async def test_build_that_cannot_be(
    store: ImageStore, tmp_path: Path, dockerfile: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await store.build(write(tmp_path / "c", dockerfile), tag="bad")


async def test_image_with_hostile_links_keeps_copies_inside(store: ImageStore, tmp_path: Path) -> None:
    """COPY writes through an image's own links: /out leads to the host's folder only by name."""
    victim = tmp_path / "victim"
    victim.mkdir()
    text = f"FROM busybox\nRUN ln -s {victim} /out && ln -s /proc/self/root{victim} /magic\nCOPY f /out/f\n"
    image = await store.build(write(tmp_path / "c", text, f="x"), tag="links:1")
    assert list(victim.iterdir()) == []
    assert await read(store, image, str(victim / "f").lstrip("/")) == ["x"]


async def test_cancelled_build_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    context = write(tmp_path / "c", "FROM busybox\nRUN echo started; sleep 987\n")
    started = asyncio.Event()

    def listen(line: str) -> None:
        if "| started" in line:
            started.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(store.build(context, tag="slow", progress=listen))
        await started.wait()
        task.cancel()
    assert mounts_below(store.content.root) == []
    assert list((store.content.root / "tmp").iterdir()) == []
    assert not any(b"sleep\x00987" in path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))


async def test_cache_mount_is_kept_between_builds_but_not_in_the_image(store: ImageStore, tmp_path: Path) -> None:
    text = "FROM busybox\nARG N\nRUN --mount=type=cache,target=/cache echo $N >> /cache/all && cp /cache/all /result\n"
    context = write(tmp_path / "c", text)
    await store.build(context, tag="cache:1", arguments={"N": "1"})
    image = await store.build(context, tag="cache:2", arguments={"N": "2"})
    root = Path(await store.mount(image, "cache"))
    assert (root / "result").read_text() == "1\n2\n"
    assert list((root / "cache").iterdir()) == []
    await store.unmount("cache")


async def test_add_unpacks_archives_and_copy_does_not(store: ImageStore, tmp_path: Path) -> None:
    context = write(tmp_path / "c", "FROM busybox\nADD x.tar.gz /added/\nCOPY x.tar.gz /copied/\n")
    with tarfile.open(context / "x.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("inside/f")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    image = await store.build(context, tag="added:1")
    root = Path(await store.mount(image, "added"))
    assert (root / "added/inside/f").read_text() == "abc"
    assert [path.name for path in (root / "copied").iterdir()] == ["x.tar.gz"]
    await store.unmount("added")


async def test_built_image_goes_out_and_comes_in_with_its_digest(store: ImageStore, home: Path, tmp_path: Path) -> None:
    image = await store.build(write(tmp_path / "c", "FROM busybox\nRUN rm -r /var && echo x > /x\n"), tag="moved:1")
    await store.export("moved:1", tmp_path / "moved.tar")
    other = open_store(home / "other")
    (came,) = await other.import_archive(tmp_path / "moved.tar")
    assert (came.id, came.digest) == (image.id, image.digest)
    root = Path(await other.mount(came, "moved"))
    assert (root / "x").exists() and not (root / "var").exists()
    await other.unmount("moved")


@pytest.fixture(scope="module")
def made(home: Path) -> list[str]:
    """What was said while two bases were made at once on a store that had none."""
    lines: list[str] = []

    async def make() -> None:
        store = open_store(home, stand_ins=True)
        async with asyncio.TaskGroup() as group:
            for name in ("python:3.11-slim", "nginx:1.7.9"):
                group.create_task(store.pull(name, progress=lines.append))

    asyncio.run(make())
    return lines


async def test_debian_bases_are_made_once_and_run(made: list[str], store: ImageStore, tmp_path: Path) -> None:
    assert sum(line.startswith("made base image debian") for line in made) == 1
    python, nginx = await store.find("python:3.11-slim"), await store.find("nginx:1.7.9")
    assert python is not None and nginx is not None
    assert (nginx.entrypoint, nginx.cmd) == (("/docker-entrypoint.sh",), ("nginx", "-g", "daemon off;"))
    text = "FROM python:3.11-slim\nRUN python -c 'import ssl, sqlite3; print(1)' > /out\n"
    image = await store.build(write(tmp_path / "py", text), tag="py:1")
    assert await read(store, image, "out", "etc/resolv.conf") == ["1\n", ""]
    text = "FROM nginx:stable\nRUN nginx -t 2>&1 | tee /out\n"
    image = await store.build(write(tmp_path / "ng", text), tag="ng:1")
    assert "test is successful" in (await read(store, image, "out"))[0]


async def test_nothing_of_the_host_stays_in_a_base(made: list[str], store: ImageStore) -> None:
    image = await store.pull("python:3.11-slim")
    root = Path(await store.mount(image, "clean"))
    lent = [root / "etc/apt/apt.conf.d/99mmdebstrap", root / "dev/.build", root / "etc/hostname"]
    assert not any(path.exists() for path in lent)
    assert list((root / "usr/local/share/ca-certificates").iterdir()) == []
    assert [path for path in (root / "var/lib/apt/lists").rglob("*") if path.is_file() and path.stat().st_size] == []
    await store.unmount("clean")
