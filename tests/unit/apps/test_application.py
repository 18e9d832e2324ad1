"""What `dure deploy` makes of a folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dure.apps.application import bare_name, images_in, load_application, with_images
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
        ({"dure_yaml": "name: [x"}, "dure.yaml is not YAML: line 1, column 9: expected ',' or ']'"),
        ({"dure_yaml": "manifests: k8s"}, "manifests is 'k8s'"),
        ({"dure_yaml": "images: {a: b}"}, "images is {'a': 'b'}"),
        ({"dure_yaml": "images: [{name: a, args: [1]}]", "Dockerfile": "FROM x"}, "is not understood"),
        ({"a_yaml": "{apiVersion: v1, kind: List, items: [{a: 1}]}"}, "apiVersion and kind are missing"),
        ({"a_yaml": "{apiVersion: v1, kind: Pod, metadata: hello}"}, "Pod without metadata.name"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, files: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        load_application(folder(tmp_path, **files))


def test_single_manifest_builds_only_what_it_names(tmp_path: Path) -> None:
    """A folder with a Dockerfile that happened to lie beside the manifest was built, and named in what was reported."""
    place = folder(tmp_path, a_yaml=DEPLOYMENT, web__Dockerfile="FROM x", other__Dockerfile="FROM x")
    assert [source.name for source in load_application(place / "a.yaml").images] == ["web"]


@pytest.mark.parametrize(
    "image", ["here:5000/web", "here:5000/web:1", "here:5000/web@sha256:0", "here:5000/web:1@sha256:0"]
)
def test_port_of_a_registry_is_no_tag(image: str) -> None:
    assert bare_name(image) == "here:5000/web"


def test_built_images_take_the_place_of_their_names() -> None:
    obj = {"spec": {"containers": [{"image": "web:dev"}, {"image": "web"}, {"image": "postgres:15"}]}}
    swapped = with_images(obj, {"web": "dure.local/web:123"})
    assert [item["image"] for item in swapped["spec"]["containers"]] == [
        "dure.local/web:123",
        "dure.local/web:123",
        "postgres:15",
    ]
    assert images_in(obj) == {"web:dev", "web", "postgres:15"}
