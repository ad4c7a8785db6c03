"""The Open Inference Protocol at /v2: requests become the protocol's messages, which are answered as over gRPC."""

import asyncio
from collections.abc import Collection

from starlette.routing import BaseRoute, Route

from service.edge.calls import Calls, Method
from service.edge.failures import failure_of
from service.errors import EncodingRefused, OriginRefused
from service.http import problems
from service.http.exchange import Endpoint, Handler, Reply, Request
from service.http.inference.body import ENCODINGS, HEADER_LENGTH, split, unpacked
from service.http.inference.pages import PAGES, Page, of_model
from service.http.inference.requests import infer_request
from service.http.inference.responses import encoded, infer_response
from service.http.server import Application
from service.rpc.inference.servicer import InferenceServicer

_CONTROL = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})


def inference_routes(servicer: InferenceServicer, calls: Calls, origins: Collection[str] = ()) -> list[BaseRoute]:
    """Whatever is at /v2 and below. Pages of these `origins` may load and unload models."""
    api = _Api(servicer, calls, frozenset(origins))
    routes = [api.route("POST", path, "ModelInfer", api.infer) for path in of_model("/infer")]
    for page in PAGES:
        routes += [api.route(page.verb, path, page.method, api.handler(page)) for path in page.paths]
    application = Application(routes, calls, refusal)
    return [Route("/v2", application), Route("/v2/{rest:path}", application)]


class _Api:
    def __init__(self, servicer: InferenceServicer, calls: Calls, origins: frozenset[str]) -> None:
        self._servicer, self._calls, self._origins = servicer, calls, origins
        self._limit = servicer.bounds.request_bytes
        self._infer = self._method("ModelInfer")

    def route(self, verb: str, path: str, method: str, handler: Handler) -> Route:
        return Route(path, Endpoint(method, handler, self._calls, refusal), methods=[verb])

    async def infer(self, request: Request) -> Reply:
        body = split(await self._body(request), request.headers.get(HEADER_LENGTH))
        asked = infer_request(body, request.path["model"], request.path.get("version", ""))
        found = infer_response(await request.run(self._infer, asked.message), asked.form)
        if found.header_length is None:
            return Reply(found.data)
        headers = [(HEADER_LENGTH.encode(), b"%d" % found.header_length)]
        return Reply(found.data, b"application/octet-stream", headers=headers)

    def handler(self, page: Page) -> Handler:
        method = self._method(page.method)

        async def handle(request: Request) -> Reply:
            self._check_origin(page, request)
            data = await self._body(request) if page.verb == "POST" else b""
            asked = page.ask(request.path, data if data.strip() else b"{}")
            answer = await request.run(method, asked)
            return Reply(encoded(page.tell(answer, request.path)), status=200 if page.holds(answer) else 503)

        return handle

    def _method(self, name: str) -> Method:
        return Method(name, self._servicer.resolve, getattr(self._servicer, name), weigh=self._servicer.weigh)

    def _check_origin(self, page: Page, request: Request) -> None:
        origin = request.headers.get("origin", "")
        if page.method in _CONTROL and origin and origin not in self._origins:
            raise OriginRefused(page.method, origin)

    async def _body(self, request: Request) -> bytes:
        """Raises `RequestTooLarge`, `EncodingRefused` and `InvalidArgument`."""
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding not in ("identity", *ENCODINGS):
            raise EncodingRefused(encoding, " or ".join(ENCODINGS))
        data = await request.body(self._limit)
        return data if encoding == "identity" else await asyncio.to_thread(unpacked, data, encoding, self._limit)


def refusal(error: BaseException) -> Reply:
    """In the protocol's form of an error, with the parts for programs beside it."""
    failure = failure_of(error)
    status = problems.status_of(failure)
    problem = problems.problem(failure, status)
    parts = {name: problem[name] for name in ("code", "reason", "facts", "retry_after") if name in problem}
    return Reply(encoded({"error": failure.message, **parts}), status=status, headers=problems.headers(failure, status))
