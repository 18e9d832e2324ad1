"""Pulling from a real registry, and what it says when that does not work."""

import gzip
from pathlib import Path

import pytest

from dure.core.json import loads
from dure.images.errors import ImageError, PullFailed
from dure.images.reference import parse_reference
from dure.images.registry.auth import parse_challenge
from dure.images.registry.endpoints import Registries, logins_for
from dure.images.service import ImageStore, open_store
from tests.support.registry import Registry, serving

pytestmark = pytest.mark.real_loop


def make_image(home: Path, registry: Registry, *, tag: str = "1", layers: int = 3) -> str:
    """An image of some layers in the registry; its manifest's digest."""
    content = open_store(home).content
    diff_ids = []
    for number in range(layers):
        with content.layers.scratch() as folder:
            (folder / f"file-{number}").write_bytes(bytes([number]) * 300_000)
            diff_ids.append(content.layers.adopt(folder).diff_id)
    image = content.commit(None, {"Env": ["A=1"], "Cmd": ["run"], "User": "me"}, diff_ids, origin="build")
    return registry.push(content, image, "team/app", tag)


def fresh(tmp_path: Path) -> ImageStore:
    return open_store(tmp_path / "here")


async def test_pulled_image_is_here_unpacked(tmp_path: Path) -> None:
    registry = Registry()
    digest = make_image(tmp_path / "there", registry)
    async with serving(registry):
        store = fresh(tmp_path)
        image = await store.pull(f"{registry.address}/team/app:1")
        assert (image.digest, image.cmd, image.env, image.user) == (digest, ("run",), ("A=1",), "me")
        assert await store.find(f"{registry.address}/team/app:1") == image
        stored = store.content.load(image.digest)
        assert (store.content.layers.path(stored.diff_ids[2]) / "file-2").stat().st_size == 300_000
        assert [name.origin for name in store.content.names.all()] == ["pull"]


async def test_second_pull_asks_only_for_the_manifest(tmp_path: Path) -> None:
    registry = Registry()
    make_image(tmp_path / "there", registry)
    async with serving(registry):
        store = fresh(tmp_path)
        await store.pull(f"{registry.address}/team/app:1")
        registry.requests.clear()
        await store.pull(f"{registry.address}/team/app:1")
        assert registry.requests == ["GET /v2/team/app/manifests/1"]


async def test_index_gives_this_machines_image_under_the_index_digest(tmp_path: Path) -> None:
    registry = Registry()
    digest = make_image(tmp_path / "there", registry)
    index = registry.push_index("team/app", "many", digest)
    async with serving(registry):
        store = fresh(tmp_path)
        image = await store.pull(f"{registry.address}/team/app:many")
        assert image.digest == index
        assert store.content.load(index).digest == digest
        assert await store.pull(f"{registry.address}/team/app@{index}")


@pytest.mark.parametrize("knows_ranges", [True, False])
async def test_broken_download_goes_on(tmp_path: Path, knows_ranges: bool) -> None:
    registry = Registry(breaks_after=100, knows_ranges=knows_ranges)
    make_image(tmp_path / "there", registry, layers=1)
    async with serving(registry):
        assert await fresh(tmp_path).pull(f"{registry.address}/team/app:1")


async def test_blob_may_be_elsewhere(tmp_path: Path) -> None:
    registry = Registry(redirects=True)
    make_image(tmp_path / "there", registry)
    async with serving(registry):
        assert await fresh(tmp_path).pull(f"{registry.address}/team/app:1")


async def test_login_is_taken_from_the_credentials(tmp_path: Path) -> None:
    registry = Registry(login=("ann", "secret"))
    make_image(tmp_path / "there", registry)
    async with serving(registry):
        store = fresh(tmp_path)
        wrong = {"registry": registry.address, "username": "ann", "password": "wrong"}
        right = {"registry": f"http://{registry.address}/v1/", "auth": "YW5uOnNlY3JldA=="}
        with pytest.raises(PullFailed, match="failed to authorize: failed to fetch token: 401"):
            await store.pull(f"{registry.address}/team/app:1", [wrong])
        with pytest.raises(PullFailed, match="failed to authorize"):
            await store.pull(f"{registry.address}/team/app:1")
        assert await store.pull(f"{registry.address}/team/app:1", [wrong, right])


async def test_missing_image_is_not_found(tmp_path: Path) -> None:
    async with serving(Registry()) as registry:
        name = f"{registry.address}/nope:latest"
        with pytest.raises(PullFailed) as failed:
            await fresh(tmp_path).pull(name)
    assert str(failed.value) == (
        f'failed to pull and unpack image "{name}": failed to resolve reference "{name}": {name}: not found'
    )
    assert failed.value.reason == "ErrImagePull"


async def test_unreachable_registry_fails_at_once(tmp_path: Path) -> None:
    async with serving(Registry()) as registry:
        address = registry.address
    with pytest.raises(PullFailed, match=f"dial tcp {address}: connect: connection refused"):
        await fresh(tmp_path).pull(f"{address}/x:1")


async def test_unknown_host_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(PullFailed, match=r"dial tcp: lookup registry\.invalid: no such host"):
        await fresh(tmp_path).pull("registry.invalid/x:1")


async def test_changed_blob_is_refused_and_nothing_is_named(tmp_path: Path) -> None:
    registry = Registry()
    make_image(tmp_path / "there", registry)
    for digest, data in registry.blobs.items():
        if data.startswith(b"\x1f\x8b"):
            registry.blobs[digest] = bytes(len(data))
    async with serving(registry):
        store = fresh(tmp_path)
        with pytest.raises(PullFailed, match="content has digest"):
            await store.pull(f"{registry.address}/team/app:1")
        assert store.list() == []
        assert list((tmp_path / "here/images/tmp").iterdir()) == []


async def test_layer_that_is_not_what_the_config_says_is_refused(tmp_path: Path) -> None:
    registry = Registry()
    make_image(tmp_path / "there", registry, layers=1)
    _, manifest = registry.manifests["team/app:1"]
    other = registry.add_blob(gzip.compress(b"\0" * 1024))
    body = loads(manifest)
    body["layers"][0].update(other)
    registry.add_manifest("team/app", "1", body)
    async with serving(registry):
        with pytest.raises(PullFailed, match="the image says"):
            await fresh(tmp_path).pull(f"{registry.address}/team/app:1")


@pytest.mark.parametrize(
    "body",
    [
        {"schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+json"},
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"},
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []},
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": 7, "layers": {}},
    ],
)
async def test_strange_manifest_is_one_line(tmp_path: Path, body: dict[str, object]) -> None:
    registry = Registry()
    registry.add_manifest("x", "1", body)
    async with serving(registry):
        with pytest.raises(PullFailed) as failed:
            await fresh(tmp_path).pull(f"{registry.address}/x:1")
    assert "\n" not in str(failed.value)


async def test_name_that_is_no_name(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as refused:
        await fresh(tmp_path).pull("No Such")
    assert refused.value.reason == "InvalidImageName"


def test_credentials_are_chosen_as_the_kubelet_does() -> None:
    def entry(registry: str) -> dict[str, str]:
        return {"registry": registry, "username": registry, "password": "p"}

    def chosen(image: str, *registries: str) -> list[str]:
        return [login.username for login in logins_for(parse_reference(image), [entry(name) for name in registries])]

    assert chosen("nginx", "https://index.docker.io/v1/", "quay.io") == ["https://index.docker.io/v1/"]
    assert chosen("quay.io/a/b", "quay.io", "quay.io/a", "quay.io/c") == ["quay.io/a", "quay.io"]
    assert chosen("x.example.com/a", "*.example.com", "example.com", "*.com") == ["*.example.com"]
    assert chosen("host:5000/a", "host", "host:5000", "http://host:5000/v2/") == ["http://host:5000/v2/", "host:5000"]


def test_plain_http_is_for_this_machine_and_where_it_was_allowed() -> None:
    registries = Registries(insecure=frozenset({"lab:5000"}), mirrors={"docker.io": "http://mirror/"})
    assert registries.base_url("localhost:5000") == "http://localhost:5000"
    assert registries.base_url("127.0.0.9") == "http://127.0.0.9"
    assert registries.base_url("lab:5000") == "http://lab:5000"
    assert registries.base_url("lab:5001") == "https://lab:5001"
    assert registries.base_url("docker.io") == "http://mirror"
    assert Registries().base_url("docker.io") == "https://registry-1.docker.io"


def test_challenge_is_read() -> None:
    challenge = parse_challenge('Bearer realm="https://a/t?x=1,2",service="s",scope="repository:x:pull"')
    assert challenge is not None
    assert (challenge.scheme, challenge.parameters["realm"], challenge.parameters["service"]) == (
        "bearer",
        "https://a/t?x=1,2",
        "s",
    )
    assert parse_challenge("") is None
