"""Subresources only pods have: binding to a node, and eviction that respects disruption budgets."""

from __future__ import annotations

from collections.abc import Mapping

from dure.api.kind import Kind
from dure.api.meta import condition, with_condition
from dure.api.selectors import from_label_selector
from dure.api.validation import decode_as
from dure.apiserver.call import Call
from dure.apiserver.decoding import decode_body
from dure.apiserver.errors import conflict
from dure.apiserver.representation import encode_value
from dure.apiserver.rest.deleting import Deleting
from dure.apiserver.rest.objects import Objects
from dure.apiserver.rest.options import DeleteOptions, read_delete_options, read_write_options
from dure.apiserver.rest.resources import Answer
from dure.core.errors import BadRequest, Conflict, InternalError, TooManyRequests
from dure.core.json import Obj, thaw
from dure.wire.http import Response

_BINDING = "io.k8s.api.core.v1.Binding"
_EVICTION = "io.k8s.api.policy.v1.Eviction"
_VIOLATES = "Cannot evict pod as it would violate the pod's disruption budget."
_TOO_MANY_BUDGETS = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."


def _success(call: Call) -> Response:
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
    response = encode_value(status, call.media)
    response.status = 201
    return response


class PodSubresources:
    """`answers` goes into the table of special resources."""

    def __init__(self, objects: Objects, deleting: Deleting) -> None:
        self._objects, self._deleting = objects, deleting

    def answers(self) -> Mapping[str, Answer]:
        return {"pods/binding": self.bind, "bindings": self.bind, "pods/eviction": self.evict}

    @property
    def _pods(self) -> Kind:
        return self._objects.kinds.resource("pods")

    async def bind(self, call: Call) -> Response:
        """Give a pod its node, once."""
        options = read_write_options(call.request, "CreateOptions")
        binding = decode_body(call.request, "Binding").value
        if call.request.value is None:
            decode_as(_BINDING, "v1", "Binding", binding)
        name = call.name or (binding.get("metadata") or {}).get("name", "")
        target = binding.get("target") or {}
        if target.get("kind") not in (None, "", "Node"):
            raise BadRequest(f'Binding "{name}" is invalid: target.kind: Unsupported value: "{target["kind"]}"')
        if not target.get("name"):
            raise BadRequest(f'Binding "{name}" is invalid: target.name: Required value')
        uid = (binding.get("metadata") or {}).get("uid", "")
        if not options.dry_run:
            now = self._objects.now()
            await self._objects.amend(
                self._pods, call.namespace, name, lambda pod: _bound(self._pods, pod, target["name"], uid, now)
            )
        return _success(call)

    async def evict(self, call: Call) -> Response:
        """Delete a pod unless that would break a disruption budget."""
        eviction = decode_body(call.request, "Eviction").value
        if call.request.value is None:
            decode_as(_EVICTION, "v1", "Eviction", eviction)
        name = (eviction.get("metadata") or {}).get("name")
        if name and name != call.name:
            raise BadRequest("name in URL does not match name in Eviction object")
        options = read_delete_options(call.request, eviction.get("deleteOptions") or {})
        pod = await self._objects.get(call.kind, call.namespace, call.name)
        if not _is_idle(pod):
            await self._charge(call, pod, options)
        if not options.dry_run:
            await self._mark_disrupted(call)
        await self._deleting.remove(call, call.namespace, call.name, options)
        return _success(call)

    async def _charge(self, call: Call, pod: Obj, options: DeleteOptions) -> None:
        """Take one allowed disruption from the pod's budget."""
        kind = self._objects.kinds.resource("poddisruptionbudgets.policy")
        page = await self._objects.store.list(kind.prefix(call.namespace))
        decode = self._objects.codec(kind).decode
        budgets = [budget for record in page.records if _guards(budget := decode(record), pod)]
        if not budgets:
            return
        if len(budgets) > 1:
            raise InternalError(_TOO_MANY_BUDGETS)
        now = self._objects.now()
        name = budgets[0]["metadata"]["name"]
        if options.dry_run:
            _charged(budgets[0], pod, now)
        else:
            await self._objects.amend(kind, call.namespace, name, lambda budget: _charged(budget, pod, now))

    async def _mark_disrupted(self, call: Call) -> None:
        now = self._objects.now()
        entry = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        }

        def marked(pod: Obj) -> Obj:
            new: Obj = thaw(pod)
            status = new.setdefault("status", {})
            status["conditions"] = with_condition(status.get("conditions") or [], entry, now)
            return new

        await self._objects.amend(call.kind, call.namespace, call.name, marked)


def _bound(kind: Kind, pod: Obj, node: str, uid: str, now: str) -> Obj:
    meta = pod["metadata"]
    name = meta["name"]
    if uid and uid != meta["uid"]:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {meta['uid']}"
        raise conflict(kind, name, why)
    if meta.get("deletionTimestamp"):
        raise _binding_conflict(kind, name, f"pod {name} is being deleted, cannot be assigned to a host")
    if pod["spec"].get("nodeName"):
        raise _binding_conflict(kind, name, f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"')
    if pod["spec"].get("schedulingGates"):
        raise _binding_conflict(kind, name, f"pod {name} has non-empty .spec.schedulingGates")
    new: Obj = thaw(pod)
    new["spec"]["nodeName"] = node
    status = new.setdefault("status", {})
    entry = {"type": "PodScheduled", "status": "True", "lastProbeTime": None}
    if meta.get("generation"):
        entry["observedGeneration"] = meta["generation"]
    status["conditions"] = with_condition(status.get("conditions") or [], entry, now)
    return new


def _binding_conflict(kind: Kind, name: str, why: str) -> Conflict:
    message = f'Operation cannot be fulfilled on pods/binding "{name}": {why}'
    return Conflict(message, details={"name": name, "kind": "pods/binding"})


def _is_idle(pod: Obj) -> bool:
    """Pods that serve nobody may always go."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed", "Pending") or bool(pod["metadata"].get("deletionTimestamp"))


def _guards(budget: Obj, pod: Obj) -> bool:
    selector = from_label_selector((budget.get("spec") or {}).get("selector"))
    return selector is not None and selector.matches(pod["metadata"].get("labels"))


def _charged(budget: Obj, pod: Obj, now: str) -> Obj:
    """The budget with this pod's disruption taken. Raises TooManyRequests when none is left."""
    meta, spec, status = budget["metadata"], budget.get("spec") or {}, budget.get("status") or {}
    name = meta["name"]
    ready = (condition(pod, "Ready") or {}).get("status") == "True"
    if not ready and spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return budget
    healthy, wanted = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
    if not ready and healthy >= wanted and wanted > 0:
        return budget
    if status.get("observedGeneration", 0) < meta.get("generation", 0):
        raise _refused(f"The disruption budget {name} is still being processed by the server.", 10)
    if status.get("disruptionsAllowed", 0) <= 0:
        raise _refused(f"The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently")
    new: Obj = thaw(budget)
    new["status"]["disruptionsAllowed"] -= 1
    new["status"].setdefault("disruptedPods", {})[pod["metadata"]["name"]] = now
    return new


def _refused(cause: str, retry_after: int | None = None) -> TooManyRequests:
    details = {"causes": [{"reason": "DisruptionBudget", "message": cause}]}
    return TooManyRequests(_VIOLATES, details=details, retry_after=retry_after)
