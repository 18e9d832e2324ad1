"""What `dure deploy` makes of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dure.apps.application import images_in, load_application, with_images
from dure.core.errors import ConfigError

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {}\n"
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {containers: [{name: web, image: "web:dev"}, {name: db, image: "postgres:15"}]}}}
"""


def folder(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_yaml", ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_plain_folder_is_an_application(tmp_path: Path) -> None:
    app = load_application(
        folder(tmp_path / "shop", k8s__a_yaml=DEPLOYMENT + "---" + "\n" + SERVICE, web__Dockerfile="FROM x")
    )
    assert (app.name, app.namespace) == ("shop", "default")
    assert [source.name for source in app.images] == ["web"]
    assert [obj["kind"] for obj in app.objects] == ["Service", "Deployment"]


def test_described_folder(tmp_path: Path) -> None:
    text = "name: store\nnamespace: prod\nimages: [{name: api, context: web, args: {A: 1}}]\nmanifests: [all.yaml]\n"
    app = load_application(folder(tmp_path, dure_yaml=text, all_yaml=SERVICE, web__Dockerfile="FROM x"))
    assert (app.name, app.namespace, app.images[0].args) == ("store", "prod", {"A": "1"})


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no manifests in"),
        ({"a_yaml": "{: no"}, "a.yaml is not YAML"),
        ({"a_yaml": "just: text"}, "apiVersion and kind are missing"),
        ({"a_yaml": "apiVersion: v1\nkind: Service\nmetadata: {}"}, "Service without metadata.name"),
        ({"dure_yaml": "manifest: [a]"}, "unknown field 'manifest'"),
        ({"dure_yaml": "images: [{name: x, context: y}]", "a_yaml": SERVICE}, "there is no"),
        ({"dure_yaml": "manifests: [gone.yaml]"}, "gone.yaml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, files: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_application(folder(tmp_path, **files))


def test_built_images_take_the_place_of_their_names() -> None:
    obj = {"spec": {"containers": [{"image": "web:dev"}, {"image": "web"}, {"image": "postgres:15"}]}}
    swapped = with_images(obj, {"web": "dure.local/web:123"})
    assert [item["image"] for item in swapped["spec"]["containers"]] == [
        "dure.local/web:123",
        "dure.local/web:123",
        "postgres:15",
    ]
    assert images_in(obj) == {"web:dev", "web", "postgres:15"}
