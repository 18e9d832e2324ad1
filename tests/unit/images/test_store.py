"""The store keeps what it names, gives back what it does not, and is shared between processes."""

import asyncio
import multiprocessing
import os
from pathlib import Path

import pytest

from dure.core.json import dumps, loads
from dure.images.content import digest_of
from dure.images.errors import ArchiveRefused, ImageNotFound, StoreBusy
from dure.images.names import NameIndex
from dure.images.reference import parse_reference
from dure.images.service import ImageStore, open_store
from dure.images.stand_ins import base_reference


def add_image(store: ImageStore, name: str, *texts: str) -> str:
    """An image of one layer for each text, each with one file; its digest."""
    content = store.content
    diff_ids = []
    for text in texts:
        with content.layers.scratch() as folder:
            (folder / text).write_text(text)
            diff_ids.append(content.layers.adopt(folder).diff_id)
    return content.commit(parse_reference(name), {"Cmd": ["sh"]}, diff_ids, origin="build").digest


def test_blob_with_another_digest_is_not_kept(tmp_path: Path) -> None:
    blobs = open_store(tmp_path).content.blobs
    with pytest.raises(ArchiveRefused, match="has digest"), blobs.writing(digest_of(b"a")) as writer:
        writer.write(b"b")
    assert blobs.digests() == []


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "md5:1", "", "sha256:" + "A" * 64])
def test_what_is_no_digest_has_no_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(ArchiveRefused):
        open_store(tmp_path).content.blobs.path(digest)


async def test_equal_input_gives_an_equal_image(tmp_path: Path) -> None:
    one, two = open_store(tmp_path / "1"), open_store(tmp_path / "2")
    for store in (one, two):
        with store.content.layers.scratch() as folder:
            (folder / "f").write_text("x")
            os.utime(folder / "f", (5, 5))
            diff_id = store.content.layers.adopt(folder).diff_id
        store.content.commit(None, {"Cmd": ["a"]}, [diff_id], origin="build")
    assert sorted(one.content.blobs.digests()) == sorted(two.content.blobs.digests())


async def test_image_lacking_a_layer_is_not_present(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    add_image(store, "app", "a", "b")
    image = await store.find("app")
    assert image is not None
    store.content.layers.delete(store.content.load(image.digest).diff_ids[0])
    assert await store.find("app") is None
    assert [listed.complete for listed in store.list()] == [False]


async def test_layer_of_another_boot_counts_only_when_it_was_settled(tmp_path: Path) -> None:
    """A power cut may have left files without their content."""
    store = open_store(tmp_path)
    add_image(store, "app", "a")
    record = next((tmp_path / "images/layers").glob("*.json"))
    earlier = {**loads(record.read_bytes()), "boot": "another"}
    record.write_bytes(dumps(earlier))
    assert await store.find("app") is None
    record.write_bytes(dumps({**earlier, "boot": ""}))
    assert await store.find("app") is not None


async def test_settled_layers_need_no_boot(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    add_image(store, "app", "a")
    await store.settle()
    assert [loads(path.read_bytes())["boot"] for path in (tmp_path / "images/layers").glob("*.json")] == [""]


async def test_removing_an_image_frees_what_only_it_used(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    add_image(store, "one", "shared", "own")
    add_image(store, "two", "shared")
    reference, freed = await store.remove("one")
    assert (reference, freed > 0) == ("docker.io/library/one:latest", True)
    assert await store.find("two") is not None
    assert len(store.content.layers.diff_ids()) == 1
    with pytest.raises(ImageNotFound, match="no image one"):
        await store.remove("one")


async def test_image_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    add_image(store, "app:1", "a")
    image = await store.find("app:1")
    assert image is not None
    assert store.inspect(image.id[7:19])["reference"] == "docker.io/library/app:1"


async def test_prune_waits_for_nobody(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    async with store.content.in_use():
        with pytest.raises(StoreBusy):
            await store.prune()


async def test_what_a_container_uses_is_not_pruned(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    add_image(store, "app", "a")
    image = store.content.load(store.list()[0].digest)
    folder = tmp_path / "images/containers/c1"
    folder.mkdir()
    (folder / "image.json").write_bytes(dumps({"image": image.id, "layers": image.diff_ids}))
    await store.remove("app")
    assert store.content.layers.diff_ids() == image.diff_ids


async def test_tag_gives_a_second_name(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    digest = add_image(store, "app", "a")
    image = await store.tag("app", "dure.local/app:abc")
    assert (image.reference, image.digest) == ("dure.local/app:abc", digest)
    with pytest.raises(ImageNotFound):
        await store.tag("nope", "x")


async def test_a_name_made_here_needs_no_registry(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    add_image(store, "registry.invalid/app:1", "a")
    assert (await store.pull("registry.invalid/app:1")).reference == "registry.invalid/app:1"


async def test_stand_ins_answer_only_where_they_may(tmp_path: Path) -> None:
    closed, opened = open_store(tmp_path), open_store(tmp_path, stand_ins=True)
    add_image(closed, str(base_reference("nginx")), "a")
    assert await closed.find("nginx:1.7.9") is None
    image = await opened.find("nginx:1.7.9")
    assert image is not None
    assert (image.reference, image.stand_in) == ("docker.io/library/nginx:1.7.9", True)
    own = add_image(opened, "nginx:1.7.9", "b")
    image = await opened.find("nginx:1.7.9")
    assert image is not None
    assert (image.digest, image.stand_in) == (own, False)


async def test_archive_goes_out_and_comes_in_again(tmp_path: Path) -> None:
    store, other = open_store(tmp_path / "a"), open_store(tmp_path / "b")
    digest = add_image(store, "app:1", "a", "b")
    await store.export("app:1", tmp_path / "app.tar")
    (image,) = await other.import_archive(tmp_path / "app.tar")
    assert (image.reference, image.digest) == ("docker.io/library/app:1", digest)
    (image,) = await other.import_archive(tmp_path / "app.tar", "renamed:2")
    assert image.reference == "docker.io/library/renamed:2"


async def test_broken_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no archive at all")
    store = open_store(tmp_path)
    with pytest.raises(ArchiveRefused):
        await store.import_archive(tmp_path / "x.tar")
    assert store.list() == []


def _name_many(root: str, worker: int) -> None:
    index = NameIndex(Path(root))
    for number in range(20):
        index.set(f"w{worker}-{number}", "sha256:" + "0" * 64, "build")


@pytest.mark.real_loop
def test_processes_share_the_names(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_name_many, args=(str(tmp_path), worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(NameIndex(tmp_path).all()) == 60


async def test_equal_layers_made_at_once_are_one(tmp_path: Path) -> None:
    layers = open_store(tmp_path).content.layers

    def make() -> str:
        with layers.scratch() as folder:
            (folder / "f").write_text("x")
            os.utime(folder / "f", (5, 5))
            os.utime(folder, (5, 5))
            return layers.adopt(folder).diff_id

    made = await asyncio.gather(*(asyncio.to_thread(make) for _ in range(4)))
    assert layers.diff_ids() == [made[0]] and len(set(made)) == 1
