"""`serviceaccounts/token`: a fresh token for an account, bound to a pod if asked."""

from __future__ import annotations

from collections.abc import Mapping

from dure.api.fields import invalid, invalid_error
from dure.api.validation import decode_as
from dure.apiserver.call import Call
from dure.apiserver.decoding import decode_body
from dure.apiserver.errors import conflict, not_found
from dure.apiserver.ports import TokenIssuer
from dure.apiserver.representation import encode_value
from dure.apiserver.rest.objects import Objects
from dure.apiserver.rest.resources import Answer
from dure.core.clock import rfc3339
from dure.core.errors import BadRequest, NotFound
from dure.core.json import Obj, thaw
from dure.wire.http import Response

_DEFINITION = "io.k8s.api.authentication.v1.TokenRequest"
_GROUP = "authentication.k8s.io"
_MIN_SECONDS, _MAX_SECONDS = 600, 1 << 32


class TokenRequests:
    def __init__(self, objects: Objects, tokens: TokenIssuer | None) -> None:
        self._objects, self._tokens = objects, tokens

    def answers(self) -> Mapping[str, Answer]:
        return {"serviceaccounts/token": self.create}

    async def create(self, call: Call) -> Response:
        """Raises NotFound, Invalid, BadRequest."""
        if self._tokens is None:
            raise NotFound("the server could not find the requested resource")
        request: Obj = thaw(decode_body(call.request, "TokenRequest").value)
        decode_as(_DEFINITION, "v1", "TokenRequest", request)
        spec = request.setdefault("spec", {})
        account = await self._objects.get(call.kind, call.namespace, call.name)
        seconds = spec.get("expirationSeconds") or 3600
        _check_seconds(seconds)
        pod = await self._bound_pod(call, spec.get("boundObjectRef"))
        audiences = list(spec.get("audiences") or [self._tokens.issuer])
        token, ends = self._tokens.issue(account, audiences=audiences, seconds=seconds, pod=pod)
        meta = {
            "name": call.name,
            "namespace": call.namespace,
            "creationTimestamp": self._objects.now(),
        }
        made: Obj = {
            "kind": "TokenRequest",
            "apiVersion": f"{_GROUP}/v1",
            "metadata": meta,
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": {"token": token, "expirationTimestamp": rfc3339(ends)},
        }
        made["spec"].setdefault("boundObjectRef", None)
        response = encode_value(made, call.media)
        response.status = 201
        return response

    async def _bound_pod(self, call: Call, reference: Obj | None) -> Obj | None:
        if not reference:
            return None
        if (reference.get("apiVersion"), reference.get("kind")) != ("v1", "Pod"):
            shown = f"{reference.get('apiVersion')}, Kind={reference.get('kind')}"
            raise BadRequest(f"cannot bind token to object of type {shown}")
        pods, name = self._objects.kinds.resource("pods"), reference.get("name", "")
        pod = await self._objects.find(pods, call.namespace, name)
        if pod is None:
            raise not_found(pods, name)
        uid = reference.get("uid")
        if uid and uid != pod["metadata"]["uid"]:
            why = f"the UID in the bound object reference ({uid}) does not match the UID in record"
            raise conflict(
                pods, name, f"{why} ({pod['metadata']['uid']}). The object might have been deleted and then recreated"
            )
        if pod["spec"].get("serviceAccountName") != call.name:
            raise BadRequest("cannot bind token for serviceaccount to pod running with different serviceaccount name.")
        return pod


def _check_seconds(seconds: int) -> None:
    errors = []
    if seconds < _MIN_SECONDS:
        errors.append(invalid("spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"))
    if seconds > _MAX_SECONDS:
        errors.append(invalid("spec.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds"))
    if errors:
        raise invalid_error(_GROUP, "TokenRequest", "", errors)
