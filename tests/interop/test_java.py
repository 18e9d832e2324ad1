"""io.kubernetes:client-java, the official client for Java."""

from __future__ import annotations

import shutil

import pytest

from tests.interop.conftest import CACHE, HERE, Run, build, expect_ok, names, need


@pytest.fixture(scope="session")
def program() -> list[str]:
    """The command line; built anew only when a source has changed."""
    java, maven = need("java"), need("mvn")
    folder = CACHE / "java"
    built, sources = folder / "built", HERE / "java"
    text = "".join(path.read_text() for path in sorted(sources.rglob("*")) if path.is_file())
    if not built.exists() or built.read_text() != text:
        shutil.copytree(sources, folder, dirs_exist_ok=True)
        build(folder, maven, "-q", "-B", "compile", "dependency:build-classpath", "-Dmdep.outputFile=target/classpath")
        built.write_text(text)
    libraries = (folder / "target" / "classpath").read_text()
    return [java, "-cp", f"{folder / 'target' / 'classes'}:{libraries}", "Checks"]


@pytest.mark.parametrize("name", names("java", r'^    check\("([a-z0-9-]+)"'))
def test_java(program: list[str], run: Run, name: str) -> None:
    expect_ok(run("java", program, {}), name)
