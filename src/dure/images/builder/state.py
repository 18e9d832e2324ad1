"""What a stage has become so far, and what the instructions that run nothing make of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dure.core.json import Obj, dumps_sorted
from dure.images.builder.parser import Instruction
from dure.images.builder.words import expand, expand_words, is_variable_name, parse_pairs, split_words
from dure.images.content import digest_of
from dure.images.errors import DockerfileError
from dure.images.model import StoredImage, host_architecture
from dure.images.sandbox import DEFAULT_PATH

DEFAULT_SHELL = ("/bin/sh", "-c")
_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?\Z", re.IGNORECASE)
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
PREDEFINED = frozenset([*_PROXIES, *(name.upper() for name in _PROXIES)])


def platform_arguments() -> dict[str, str]:
    """The ARGs every Dockerfile may declare without a value."""
    architecture = host_architecture()
    both = {"PLATFORM": f"linux/{architecture}", "OS": "linux", "ARCH": architecture, "VARIANT": ""}
    return {f"{side}{name}": value for side in ("TARGET", "BUILD") for name, value in both.items()}


@dataclass(slots=True)
class StageState:
    """`key` identifies everything done so far: equal keys mean equal results."""

    key: str
    layers: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=lambda: {"PATH": DEFAULT_PATH})
    config: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    history: list[Obj] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    """Of WORKDIR, to be made with the next layer."""
    has_own_command: bool = False
    escape: str = "\\"

    @staticmethod
    def of_image(image: StoredImage, escape: str) -> StageState:
        config = dict(image.config.get("config") or {})
        env = dict(entry.partition("=")[::2] for entry in config.pop("Env", None) or ())
        state = StageState(next_key("", "FROM", image.id), list(image.diff_ids), config=config, escape=escape)
        state.env.update(env)
        state.history = list(image.config.get("history") or ())
        return state

    def fork(self) -> StageState:
        """The beginning of a stage that stands on this one."""
        return StageState(
            next_key(self.key, "FROM"), list(self.layers), dict(self.env), dict(self.config),
            history=list(self.history), folders=list(self.folders), escape=self.escape,
        )  # fmt: skip

    @property
    def variables(self) -> dict[str, str]:
        """For replacement: the environment wins over arguments."""
        return {**self.arguments, **self.env}

    @property
    def working_dir(self) -> str:
        return self.config.get("WorkingDir") or "/"

    @property
    def user(self) -> str:
        return self.config.get("User") or ""

    @property
    def shell(self) -> tuple[str, ...]:
        return tuple(self.config.get("Shell") or DEFAULT_SHELL)

    def run_config(self) -> Obj:
        """The image's `config`."""
        return {**self.config, "Env": [f"{name}={value}" for name, value in self.env.items()]}

    def resolve(self, path: str) -> str:
        """A path relative to the working folder; a closing slash stays."""
        return path if path.startswith("/") else f"{self.working_dir.rstrip('/')}/{path}"

    def advance(self, *parts: Any) -> None:
        self.key = next_key(self.key, *parts)

    def note(self, instruction: Instruction, *, empty: bool = True) -> None:
        entry: Obj = {"created_by": str(instruction)}
        if empty:
            entry["empty_layer"] = True
        self.history.append(entry)


def next_key(key: str, *parts: Any) -> str:
    return digest_of(dumps_sorted([key, *parts]))


def apply_metadata(state: StageState, instruction: Instruction, outside: Mapping[str, str]) -> str:
    """Carry out an instruction that needs no file system; a remark for the user, mostly empty.

    `outside` are the values an ARG without its own takes. Raises DockerfileError.
    """
    remark = _ACTIONS[instruction.name](state, instruction, outside) or ""
    if instruction.name != "ARG":  # an argument counts where it is used
        state.advance(instruction.name, instruction.text, state.config, state.env)
        state.note(instruction)
    return remark


def is_metadata(instruction: Instruction) -> bool:
    return instruction.name in _ACTIONS


def _one(state: StageState, instruction: Instruction) -> str:
    return expand(instruction.text, state.variables, state.escape, instruction.line)


def _many(state: StageState, instruction: Instruction) -> list[str]:
    if instruction.words is not None:
        return [expand(word, state.variables, state.escape, instruction.line) for word in instruction.words]
    return expand_words(instruction.text, state.variables, state.escape, instruction.line)


def _pairs(state: StageState, instruction: Instruction) -> list[tuple[str, str]]:
    variables = state.variables  # as they were before this instruction
    line = instruction.line
    pairs = parse_pairs(instruction.name, instruction.text, line, state.escape)
    return [
        (expand(key, variables, state.escape, line), expand(value, variables, state.escape, line))
        for key, value in pairs
    ]


def _env(state: StageState, instruction: Instruction, _: Mapping[str, str]) -> None:
    state.env.update(_pairs(state, instruction))


def _label(state: StageState, instruction: Instruction, _: Mapping[str, str]) -> None:
    state.config["Labels"] = {**(state.config.get("Labels") or {}), **dict(_pairs(state, instruction))}


def _arg(state: StageState, instruction: Instruction, outside: Mapping[str, str]) -> None:
    for word in split_words(instruction.text, state.escape, instruction.line):
        name, equals, default = word.partition("=")
        if not is_variable_name(name):
            raise DockerfileError(f"ARG {name!r} is not a variable name", instruction.line)
        if name in outside:
            state.arguments[name] = outside[name]
        elif equals:
            state.arguments[name] = expand(default, state.variables, state.escape, instruction.line)


def _workdir(state: StageState, instruction: Instruction, _: Mapping[str, str]) -> None:
    path = state.resolve(_one(state, instruction))
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    state.config["WorkingDir"] = "/" + "/".join(parts)
    state.folders.append(state.config["WorkingDir"])


def _user(state: StageState, instruction: Instruction, _: Mapping[str, str]) -> None:
    state.config["User"] = _one(state, instruction)


def _as_command(state: StageState, instruction: Instruction) -> list[str]:
    return list(instruction.words) if instruction.words is not None else [*state.shell, instruction.text]


def _cmd(state: StageState, instruction: Instruction, _: Mapping[str, str]) -> None:
    state.config["Cmd"] = _as_command(state, instruction)
    state.has_own_command = True


def _entrypoint(state: StageState, instruction: Instruction, _: Mapping[str, str]) -> None:
    state.config["Entrypoint"] = _as_command(state, instruction)
    if not state.has_own_command:
        state.config.pop("Cmd", None)  # the base's command was meant for the base's entrypoint


def _expose(state: StageState, instruction: Instruction, _: Mapping[str, str]) -> None:
    ports = dict(state.config.get("ExposedPorts") or {})
    for word in _many(state, instruction):
        match = _PORT.match(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or not 1 <= first <= last <= 65535:
            raise DockerfileError(f"invalid containerPort: {word}", instruction.line)
        ports.update({f"{port}/{(match[3] or 'tcp').lower()}": {} for port in range(first, last + 1)})
    state.config["ExposedPorts"] = ports


def _volume(state: StageState, instruction: Instruction, _: Mapping[str, str]) -> None:
    paths: Sequence[str] = _many(state, instruction)
    if not all(path.strip() for path in paths):
        raise DockerfileError("VOLUME specified can not be an empty string", instruction.line)
    state.config["Volumes"] = {**(state.config.get("Volumes") or {}), **{path: {} for path in paths}}


def _stop_signal(state: StageState, instruction: Instruction, _: Mapping[str, str]) -> None:
    text = _one(state, instruction)
    if not re.match(r"(?:SIG)?[A-Z][A-Z0-9+-]*\Z|[0-9]{1,2}\Z", text):
        raise DockerfileError(f"invalid signal: {text}", instruction.line)
    state.config["StopSignal"] = text if text.isdigit() or text.startswith("SIG") else f"SIG{text}"


def _shell(state: StageState, instruction: Instruction, _: Mapping[str, str]) -> None:
    if not instruction.words:
        raise DockerfileError("SHELL requires at least one argument", instruction.line)
    state.config["Shell"] = list(instruction.words)


def _health_check(state: StageState, instruction: Instruction, _: Mapping[str, str]) -> str:
    return f"line {instruction.line}: HEALTHCHECK is ignored: Kubernetes asks probes"


def _on_build(state: StageState, instruction: Instruction, _: Mapping[str, str]) -> None:
    trigger = instruction.text.split(None, 1)[0].upper()
    if trigger in ("ONBUILD", "FROM", "MAINTAINER"):
        raise DockerfileError(f"{trigger} isn't allowed as an ONBUILD trigger", instruction.line)
    state.config["OnBuild"] = [*(state.config.get("OnBuild") or ()), instruction.text]


def _maintainer(state: StageState, instruction: Instruction, _: Mapping[str, str]) -> None:
    state.config["Labels"] = {**(state.config.get("Labels") or {}), "maintainer": instruction.text}


_ACTIONS: dict[str, Callable[[StageState, Instruction, Mapping[str, str]], str | None]] = {
    "ARG": _arg,
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _health_check,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _on_build,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
