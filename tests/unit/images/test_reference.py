"""References are read as Docker reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.images.errors import InvalidImageName
from dure.images.reference import parse_reference
from dure.images.stand_ins import stand_in_for

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.7.9", "docker.io/library/nginx:1.7.9"),
        ("me/app", "docker.io/me/app:latest"),
        ("index.docker.io/me/app:2", "docker.io/me/app:2"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("a__b/c-d--e", "docker.io/a__b/c-d--e:latest"),
    ],
)
def test_reference_is_normalised(text: str, normal: str) -> None:
    assert str(parse_reference(text)) == normal
    assert str(parse_reference(normal)) == normal


@pytest.mark.parametrize(
    "text",
    [
        *("", "Nginx", "a b", "nginx:", "nginx:a:b", "a//b", "/a", "a/", "-a", "a@sha256:12", "a@md5:" + "a" * 32),
        *("nginx:" + "x" * 129, "b" * 64, "host.com/" + "x" * 256, "a\n", "a:b\n", "x.y:z/a", "a___b"),
    ],
)
def test_bad_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidImageName) as refused:
        parse_reference(text)
    assert refused.value.reason == "InvalidImageName"


@given(st.text())
def test_any_text_is_a_reference_or_is_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidImageName:
        return
    assert parse_reference(str(reference)) == reference


def test_familiar_form_is_what_people_write() -> None:
    assert parse_reference("nginx:1").familiar == "nginx:1"
    assert parse_reference("me/app").familiar == "me/app:latest"
    assert parse_reference("quay.io/x").familiar == "quay.io/x:latest"


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("nginx:1.7.9", "nginx"),
        ("nginx:alpine", "nginx"),
        ("python:3.11-slim", "python"),
        ("python:3.11-alpine", ""),
        ("node:20-slim", "node"),
        ("postgres:15", "postgres"),
        ("busybox", "busybox"),
        ("debian:bookworm-slim", "debian"),
        ("alpine", ""),
        (f"nginx@{DIGEST}", ""),
        ("me/nginx", ""),
        ("quay.io/library/nginx", ""),
        ("python:windowsservercore", ""),
    ],
)
def test_only_some_public_names_have_a_stand_in(text: str, base: str) -> None:
    assert stand_in_for(parse_reference(text)) == base
