"""Webhook configurations and admission policies: their defaults."""

from __future__ import annotations

from dure.api.fields import invalid, required
from dure.api.kind import FieldError
from dure.api.kinds.rules import check_choice, check_label_selector
from dure.api.kinds.strategy import StandardStrategy
from dure.api.names import dns1123_subdomain
from dure.core.json import Obj


class WebhooksStrategy(StandardStrategy):
    """ValidatingWebhookConfiguration; a mutating one may ask to be called again."""

    has_generation = True
    reinvocation = False

    def default(self, obj: Obj) -> None:
        for webhook in obj.get("webhooks") or []:
            for name, value in (("failurePolicy", "Fail"), ("matchPolicy", "Equivalent"), ("timeoutSeconds", 10)):
                webhook.setdefault(name, value)
            webhook.setdefault("namespaceSelector", {})
            webhook.setdefault("objectSelector", {})
            if self.reinvocation:
                webhook.setdefault("reinvocationPolicy", "Never")
            for rule in webhook.get("rules") or []:
                rule.setdefault("scope", "*")
            service = (webhook.get("clientConfig") or {}).get("service")
            if service is not None:
                service.setdefault("port", 443)

    def check(self, obj: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        seen: set[str] = set()
        for index, webhook in enumerate(obj.get("webhooks") or []):
            path, name = f"webhooks[{index}]", webhook.get("name") or ""
            errors += _name(name, f"{path}.name")
            if name in seen:
                errors.append(FieldError(f"{path}.name", "FieldValueDuplicate", f'Duplicate value: "{name}"'))
            seen.add(name)
            errors += _webhook(webhook, path)
        return errors


class MutatingWebhooksStrategy(WebhooksStrategy):
    reinvocation = True


def _name(name: str, path: str) -> list[FieldError]:
    if not name:
        return [required(path)]
    faults = dns1123_subdomain(name)
    if not faults and name.count(".") < 2:
        faults = ["should be a domain with at least three segments separated by dots"]
    return [invalid(path, name, fault) for fault in faults]


def _webhook(webhook: Obj, path: str) -> list[FieldError]:
    errors = []
    if not webhook.get("sideEffects"):
        errors.append(required(f"{path}.sideEffects", "must specify one of None, NoneOnDryRun"))
    if not webhook.get("admissionReviewVersions"):
        detail = "must specify one of v1, v1beta1"
        errors.append(required(f"{path}.admissionReviewVersions", detail))
    errors += check_choice(f"{path}.failurePolicy", webhook.get("failurePolicy"), ("Fail", "Ignore"))
    errors += check_choice(f"{path}.matchPolicy", webhook.get("matchPolicy"), ("Equivalent", "Exact"))
    seconds = webhook.get("timeoutSeconds", 10)
    if not 1 <= seconds <= 30:
        detail = "the timeout value must be between 1 and 30 seconds"
        errors.append(invalid(f"{path}.timeoutSeconds", seconds, detail))
    for name in ("namespaceSelector", "objectSelector"):
        errors += check_label_selector(webhook.get(name), f"{path}.{name}")
    config = webhook.get("clientConfig") or {}
    if bool(config.get("url")) == (config.get("service") is not None):
        detail = "exactly one of url or service is required"
        errors.append(required(f"{path}.clientConfig", detail))
    return errors


class PolicyStrategy(StandardStrategy):
    """ValidatingAdmissionPolicy and MutatingAdmissionPolicy."""

    has_generation = True

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("failurePolicy", "Fail")
        _default_match(spec.get("matchConstraints"))


class PolicyBindingStrategy(StandardStrategy):
    has_generation = True

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if (reference := spec.get("paramRef")) is not None:
            reference.setdefault("parameterNotFoundAction", "Deny")
        _default_match(spec.get("matchResources"))


def _default_match(match: Obj | None) -> None:
    if match is None:
        return
    match.setdefault("matchPolicy", "Equivalent")
    match.setdefault("namespaceSelector", {})
    match.setdefault("objectSelector", {})
    for group in ("resourceRules", "excludeResourceRules"):
        for rule in match.get(group) or []:
            rule.setdefault("scope", "*")
