"""Instructions that run nothing: what they make of an image's configuration."""

from typing import Any

import pytest

from dure.images.builder.copy_step import plan_copy
from dure.images.builder.parser import parse_dockerfile
from dure.images.builder.run_step import read_mounts, run_arguments
from dure.images.builder.state import StageState, apply_metadata, next_key
from dure.images.errors import DockerfileError


def state_after(text: str, **outside: str) -> StageState:
    state = StageState(next_key("", "test"))
    for step in parse_dockerfile("FROM x\n" + text).stages[0].instructions:
        apply_metadata(state, step, outside)
    return state


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("CMD a b", {"Cmd": ["/bin/sh", "-c", "a b"]}),
        ('SHELL ["bash","-c"]\nCMD a', {"Shell": ["bash", "-c"], "Cmd": ["bash", "-c", "a"]}),
        ('CMD ["a"]\nENTRYPOINT ["e"]', {"Cmd": ["a"], "Entrypoint": ["e"]}),
        ("WORKDIR /a\nWORKDIR b/../c", {"WorkingDir": "/a/c"}),
        ("EXPOSE 80 53/UDP 7-8", {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "7/tcp": {}, "8/tcp": {}}}),
        ("LABEL a=1 \"b c\"='d e'", {"Labels": {"a": "1", "b c": "d e"}}),
        ('VOLUME /a /b\nVOLUME ["/c"]', {"Volumes": {"/a": {}, "/b": {}, "/c": {}}}),
        ("STOPSIGNAL INT", {"StopSignal": "SIGINT"}),
        ("ENV U=me\nUSER $U:1", {"User": "me:1"}),
        ("ONBUILD RUN x", {"OnBuild": ["RUN x"]}),
        ("MAINTAINER somebody", {"Labels": {"maintainer": "somebody"}}),
        ("HEALTHCHECK CMD true", {}),
    ],
)
def test_configuration(text: str, config: dict[str, Any]) -> None:
    assert state_after(text).config == config


def test_a_new_entrypoint_forgets_the_bases_command() -> None:
    state = StageState("k", config={"Cmd": ["base"], "Entrypoint": ["old"]})
    (step,) = parse_dockerfile('FROM x\nENTRYPOINT ["new"]').stages[0].instructions
    apply_metadata(state, step, {})
    assert state.config == {"Entrypoint": ["new"]}


def test_env_on_one_line_sees_what_was_before() -> None:
    assert state_after("ENV a=1\nENV a=2 b=$a").env["b"] == "1"


def test_arguments_come_from_outside_or_their_default_and_yield_to_env() -> None:
    state = state_after("ARG a\nARG b=2\nARG c=3\nENV c=env", a="1", c="out", undeclared="x")
    assert state.arguments == {"a": "1", "b": "2", "c": "out"}
    assert state.variables["c"] == "env"


def test_an_argument_alone_changes_no_key() -> None:
    assert state_after("ARG a=1").key == state_after("ARG a=2").key == state_after("").key
    assert state_after("ENV a=1").key != state_after("ENV a=2").key


@pytest.mark.parametrize(
    "text",
    [
        *("EXPOSE 0", "EXPOSE x", "EXPOSE 9-8", "STOPSIGNAL no such", "ENV a", "ENV =x", "ARG 1a=2"),
        *("ONBUILD FROM y", 'VOLUME [""]'),
    ],
)
def test_nonsense_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(DockerfileError) as refused:
        state_after("USER x\n" + text)
    assert refused.value.line == 3


def copy(text: str) -> Any:
    (step,) = parse_dockerfile(f"FROM x\n{text}").stages[0].instructions
    return plan_copy(step, StageState("k", config={"WorkingDir": "/w"}, env={"d": "dir"}))


def test_copy_targets_are_absolute() -> None:
    assert copy("COPY a b").target == "/w/b"
    assert copy("COPY a .").target == "/w/"
    assert copy("COPY a $d/").target == "/w/dir/"
    assert copy("COPY a /").target == "/"
    assert copy('COPY ["a b", "c"]').sources == ("a b",)
    assert copy("COPY --chmod=755 a b").mode == 0o755
    assert copy("ADD https://x/y.tgz /z").urls == ("https://x/y.tgz",)


@pytest.mark.parametrize(
    "text",
    ["COPY a", "COPY a b c", "COPY --parents a b/", "COPY --chmod=u+x a b", "ADD git@x:y.git /z", "ADD --from=a b c"],
)
def test_copy_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(DockerfileError):
        copy(text)


def run(text: str) -> Any:
    return parse_dockerfile(f"FROM x\n{text}").stages[0].instructions[0]


def test_run_has_three_forms() -> None:
    state = StageState("k")
    assert run_arguments(run("RUN a && b"), state) == ["/bin/sh", "-c", "a && b"]
    assert run_arguments(run('RUN ["a", "b"]'), state) == ["a", "b"]
    assert run_arguments(run("RUN <<E\nx\ny\nE"), state) == ["/bin/sh", "-c", "x\ny\n"]
    assert run_arguments(run("RUN python <<E\nx\nE"), state) == ["/bin/sh", "-c", "python <<E\nx\nE"]


def test_run_mounts() -> None:
    state = StageState("k", config={"WorkingDir": "/w"})
    mounts = read_mounts(run("RUN --mount=type=cache,target=c,id=mine --mount=type=tmpfs,dst=/t x"), state)
    assert (mounts.caches, mounts.memory) == ({"/w/c": "mine"}, ["/t"])
    for text in ("RUN --mount=type=bind,target=/x y", "RUN --security=insecure y", "RUN --mount=type=cache y"):
        with pytest.raises(DockerfileError, match="not supported"):
            read_mounts(run(text), state)
