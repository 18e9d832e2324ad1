"""What names, keys and values may look like, with upstream's messages (`apimachinery/pkg/util/validation`).

Each rule gives the list of what is wrong, empty when all is well.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from functools import lru_cache, update_wrapper

NameRule = Callable[[str], Sequence[str]]


def _remembered(rule: Callable[[str], list[str]]) -> NameRule:
    """The same names come again and again."""
    return update_wrapper(lru_cache(maxsize=2048)(lambda value: tuple(rule(value))), rule)


_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_DNS1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_QUALIFIED})?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_WILDCARD = rf"\*\.{_SUBDOMAIN}"

_QUALIFIED_MESSAGE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)
_QUALIFIED_EXAMPLES = ("MyName", "my.name", "123-abc")


def _regex_error(message: str, form: str, *examples: str) -> str:
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{message} (e.g. {shown}regex used for validation is '{form}')"


def max_length(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def _check(value: str, form: str, limit: int, message: str, *examples: str) -> list[str]:
    errors = [max_length(limit)] if len(value) > limit else []
    if not re.fullmatch(form, value):
        errors.append(_regex_error(message, form, *examples))
    return errors


@_remembered
def dns1123_label(value: str) -> list[str]:
    message = (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
        "and must start and end with an alphanumeric character"
    )
    return _check(value, _LABEL, 63, message, "my-name", "123-abc")


@_remembered
def dns1123_subdomain(value: str) -> list[str]:
    message = (
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
        "and must start and end with an alphanumeric character"
    )
    return _check(value, _SUBDOMAIN, 253, message, "example.com")


def wildcard_dns1123_subdomain(value: str) -> list[str]:
    message = (
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
        "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
    )
    return _check(value, _WILDCARD, 253, message, "*.example.com")


@_remembered
def dns1035_label(value: str) -> list[str]:
    message = (
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
        "start with an alphabetic character, and end with an alphanumeric character"
    )
    return _check(value, _DNS1035, 63, message, "my-name", "abc-123")


def path_segment(value: str) -> list[str]:
    """Names that need only fit in a URL: RBAC objects."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{char}'" for char in "/%" if char in value]


@_remembered
def qualified_name(value: str) -> list[str]:
    """Label and annotation keys, finalizers, resource names: `[prefix/]name`."""
    prefix, slash, name = value.rpartition("/")
    errors: list[str] = []
    if slash and "/" in prefix:
        message = _regex_error(_QUALIFIED_MESSAGE, _QUALIFIED, *_QUALIFIED_EXAMPLES)
        return [f"a qualified name {message} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    if slash and not prefix:
        errors.append("prefix part must be non-empty")
    elif slash:
        errors.extend(f"prefix part {message}" for message in dns1123_subdomain(prefix))
    if not name:
        errors.append("name part must be non-empty")
    elif len(name) > 63:
        errors.append(f"name part {max_length(63)}")
    if not re.fullmatch(_QUALIFIED, name):
        errors.append(f"name part {_regex_error(_QUALIFIED_MESSAGE, _QUALIFIED, *_QUALIFIED_EXAMPLES)}")
    return errors


@_remembered
def label_value(value: str) -> list[str]:
    message = (
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
        "and must start and end with an alphanumeric character"
    )
    return _check(value, _LABEL_VALUE, 63, message, "MyValue", "my_value", "12345")


@_remembered
def config_key(value: str) -> list[str]:
    """Keys of a ConfigMap or Secret."""
    message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
    errors = _check(value, _CONFIG_KEY, 253, message, "key.name", "KEY_NAME", "key-name")
    if value in (".", ".."):
        errors.append(f"must not be '{value}'")
    elif value.startswith(".."):
        errors.append("must not start with '..'")
    return errors


@_remembered
def env_var_name(value: str) -> list[str]:
    if re.fullmatch(r"[ -<>-~]+", value):
        return []
    return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]


@_remembered
def port_name(value: str) -> list[str]:
    errors = [max_length(15)] if len(value) > 15 else []
    if not re.fullmatch(r"[-a-z0-9]+", value):
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search(r"[a-z]", value):
        errors.append("must contain at least one letter (a-z)")
    if "--" in value:
        errors.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        errors.append("must not begin or end with a hyphen")
    return errors


def port_number(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else ["must be between 1 and 65535, inclusive"]


def ip_address(value: str) -> list[str]:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    return []


def cidr(value: str) -> list[str]:
    try:
        if "/" in value:
            ipaddress.ip_network(value, strict=False)
            return []
    except ValueError:
        pass  # the message below says what is right
    return ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]


def as_prefix(rule: NameRule) -> NameRule:
    """`rule` for a `generateName`: a dash at the end will be followed by more."""

    def check(value: str) -> Sequence[str]:
        masked = value[:-2] + "a" if len(value) > 1 and value.endswith("-") else value
        return rule(masked)

    return check
