"""Tunnels to node agents: logs, exec, attach and port-forward of pods, authorised here, spoken there.

The request is forwarded as it came, its path rewritten to the kubelet's. An upgrade is answered by the agent: from
then on both sides are raw bytes. A plain GET is read as an HTTP response and passed on as a stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from urllib.parse import quote, urlencode

from dure.apiserver.call import Call
from dure.apiserver.http_client import PipedResponse, pipe, read_response, request_head
from dure.apiserver.ports import NodeAway, NodeConnector
from dure.apiserver.rest.objects import Objects
from dure.apiserver.rest.resources import Answer
from dure.core.errors import BadRequest, InternalError
from dure.core.json import Obj
from dure.wire.http import Duplex, Response

_DROPPED = frozenset({"authorization", "host", "content-length", "transfer-encoding", "cookie"})
_ROUTES = {"log": "containerLogs", "exec": "exec", "attach": "attach"}


class NodeTunnels:
    """`answers` goes into the table of special resources."""

    def __init__(self, objects: Objects, nodes: NodeConnector | None) -> None:
        self._objects, self._nodes = objects, nodes

    def answers(self) -> Mapping[str, Answer]:
        return {
            "pods/log": self.log,
            "pods/exec": self.exec,
            "pods/attach": self.exec,
            "pods/portforward": self.forward,
        }

    async def log(self, call: Call) -> Response:
        """The container's log as the agent gives it, streamed."""
        pod = await self._pod(call)
        container = _container(call, pod)
        _check_log_options(call)
        if not pod["spec"].get("nodeName"):
            # upstream answers an unscheduled pod's log with nothing at all
            return Response(200, {"Content-Type": "text/plain"}, b"")
        path = _path("containerLogs", pod, container)
        query = {key: values for key, values in call.request.query.items() if key != "container"}
        return await self._tunnel(call, pod, f"{path}{_query(query)}")

    async def exec(self, call: Call) -> Response:
        """exec and attach, upgraded to SPDY or WebSocket."""
        pod = await self._pod(call)
        container = _container(call, pod)
        node = _node(pod)
        if not node:
            raise BadRequest(f"pod {call.name} does not have a host assigned")
        query = dict(call.request.query)
        query.pop("container", None)
        translated = {_AGENT_NAMES.get(key, key): values for key, values in query.items()}
        path = _path(_ROUTES[call.info.subresource], pod, container)
        return await self._tunnel(call, pod, f"{path}{_query(translated)}")

    async def forward(self, call: Call) -> Response:
        pod = await self._pod(call)
        if not _node(pod):
            raise BadRequest(f"pod {call.name} does not have a host assigned")
        meta = pod["metadata"]
        path = f"/portForward/{quote(meta['namespace'])}/{quote(meta['name'])}"
        query = {"port": call.request.query["ports"]} if "ports" in call.request.query else {}
        return await self._tunnel(call, pod, f"{path}{_query(query)}")

    async def _pod(self, call: Call) -> Obj:
        return await self._objects.get(call.kind, call.namespace, call.name)

    async def _tunnel(self, call: Call, pod: Obj, target: str) -> Response:
        node = _node(pod)
        if self._nodes is None:
            raise InternalError(f"error dialing node {node}: no node agent is connected to this server")
        try:
            agent = await self._nodes.open(node)
        except (NodeAway, OSError) as error:
            raise InternalError(f'Get "{self._nodes.prefix(node)}{target}": dial node {node}: {error}') from error
        return await forward(call, agent, self._nodes.prefix(node) + target)


_AGENT_NAMES = {"stdin": "input", "stdout": "output", "stderr": "error"}
"""The API's names of the streams, and the kubelet's."""


async def forward(call: Call, peer: Duplex, target: str) -> Response:
    """Send the request on to `peer`; its answer, or the taken connection."""
    request = call.request
    headers = {key: value for key, value in request.headers.items() if key not in _DROPPED}
    headers["host"] = "dure"
    headers["x-forwarded-for"] = request.peer_address or "127.0.0.1"
    headers["x-remote-user"] = call.user.name
    upgrading = request.upgrade is not None and "upgrade" in request.headers
    if not upgrading:
        headers["connection"] = "close"
        headers.pop("upgrade", None)
    if request.body:
        headers["content-length"] = str(len(request.body))
    try:
        await peer.write(request_head(request.method, target, headers) + request.body)
        if upgrading and request.upgrade is not None:
            client = await request.upgrade()
            await pipe(client, peer)
            return Response(taken=True)
        answer = await read_response(peer)
    except BaseException:
        await peer.close()
        raise
    return Response(answer.status, answer.kept_headers(), stream=_Body(answer, peer))


class _Body:
    """The rest of an answer as a stream."""

    def __init__(self, answer: PipedResponse, peer: Duplex) -> None:
        self._answer, self._peer = answer, peer

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._answer.body():
                yield chunk
        finally:
            await self._peer.close()

    async def values(self) -> AsyncIterator[bytes]:
        async for chunk in self.chunks():
            yield chunk


def _node(pod: Obj) -> str:
    return str(pod["spec"].get("nodeName") or "")


def _path(route: str, pod: Obj, container: str) -> str:
    meta = pod["metadata"]
    return f"/{route}/{quote(meta['namespace'])}/{quote(meta['name'])}/{quote(container)}"


def _query(query: Mapping[str, object]) -> str:
    return f"?{urlencode(query, doseq=True)}" if query else ""


def _names(pod: Obj, field: str) -> list[str]:
    return [container["name"] for container in pod["spec"].get(field) or ()]


def _container(call: Call, pod: Obj) -> str:
    """The container asked for, or the pod's only or default one. Raises BadRequest in upstream's words."""
    name, wanted = pod["metadata"]["name"], call.request.param("container")
    containers, inits = _names(pod, "containers"), _names(pod, "initContainers")
    if wanted:
        if wanted not in (*containers, *inits, *_names(pod, "ephemeralContainers")):
            raise BadRequest(f"container {wanted} is not valid for pod {name}")
        return wanted
    default = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
    if default in containers:
        return str(default)
    if len(containers) == 1:
        return containers[0]
    shown = " ".join(containers)
    error = f"a container name must be specified for pod {name}, choose one of: [{shown}]"
    raise BadRequest(f"{error} or one of the init containers: [{' '.join(inits)}]" if inits else error)


def _check_log_options(call: Call) -> None:
    for key in ("tailLines", "limitBytes", "sinceSeconds"):
        text = call.request.param(key)
        if text and not text.lstrip("-").isdigit():
            raise BadRequest(f'strconv.ParseInt: parsing "{text}": invalid syntax')
        if text and int(text) < (0 if key == "tailLines" else 1):
            raise BadRequest(f"{key}: Invalid value: {text}: must be greater than 0")
