"""The paths of /v1: request in, call of the core, JSON or a picture out. Errors are left to `exchange`."""

import json
from dataclasses import replace

from starlette.routing import BaseRoute, Route

from service.core.answers import Answer, Explanation
from service.core.call import Call
from service.core.classifier import Classifier
from service.edge.calls import Calls, Method
from service.edge.failures import failure_of
from service.errors import InvalidArgument
from service.http import openapi, records
from service.http.exchange import Endpoint, Header, Reply, Request, json_reply
from service.http.parameters import OF_CLASS, OF_IMAGE, OF_MODEL, REQUEST_ID, Question, preferred, question
from service.http.uploads import uploads
from service.versions.loader import LiveModel
from service.versions.routes import STABLE

JSON, PNG = "application/json", "image/png"
LINES = b"application/x-ndjson"


def api_routes(classifier: Classifier, calls: Calls) -> list[BaseRoute]:
    api = _Api(classifier)
    paths = (
        ("POST", "/v1/classify", "Classify", api.classify),
        ("POST", "/v1/explain", "Explain", api.explain),
        ("GET", "/v1/models", "ListModels", api.list_models),
        ("GET", "/v1/models/{name}", "GetModel", api.get_model),
        ("GET", "/openapi.json", "OpenApi", api.describe),
    )
    return [Route(path, Endpoint(name, handler, calls), methods=[verb]) for verb, path, name, handler in paths]


class _Api:
    """A handler for each path, and what answers it once its request is read."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._classify = Method("Classify", self._find, self._classified)
        self._explain = Method("Explain", self._find, self._explained)
        self._get_model = Method("GetModel", self._find, self._described)
        self._list_models = Method("ListModels", lambda _: None, self._listed)
        self._page = json.dumps(openapi.description()).encode()

    async def classify(self, request: Request) -> Reply:
        """One file is answered by an object or a problem, several by a line each, which may say what went wrong."""
        asked = question(request, OF_IMAGE)
        files = await uploads(request, self._classifier.limits.max_bytes)
        photos = [photo for photo, _ in files]
        questions = [replace(asked, image=files.pop(0)[1]) for _ in photos]
        if len(questions) == 1:
            answer = await request.run(self._classify, questions.pop())
            return json_reply(records.answered(photos[0], answer), headers=_echo(asked))
        answers = await request.run_all(self._classify, questions)
        lines = (_line(photo, found) for photo, found in zip(photos, answers, strict=True))
        return Reply("".join(lines).encode(), LINES, headers=_echo(asked))

    async def explain(self, request: Request) -> Reply:
        asked = question(request, OF_IMAGE | OF_CLASS)
        (photo, data), *others = await uploads(request, self._classifier.limits.max_bytes)
        if others:
            raise InvalidArgument("form", f"{len(others) + 1} files", "one file")
        found = await request.run(self._explain, replace(asked, image=data))
        headers = [*_echo(asked), (b"vary", b"accept")]
        if preferred(request.headers.get("accept", ""), (JSON, PNG)) == PNG:
            return Reply(found.overlay_png, PNG.encode(), headers=headers)
        return json_reply(records.explained(photo, found), headers=headers)

    async def list_models(self, request: Request) -> Reply:
        models = await request.run(self._list_models, question(request, frozenset()))
        return json_reply({"models": [records.described(model) for model in models]})

    async def get_model(self, request: Request) -> Reply:
        asked = question(request, OF_MODEL)
        asked = replace(asked, model=request.path["name"], label=asked.label or STABLE)
        model = await request.run(self._get_model, asked)
        return json_reply({**records.described(model), "manifest": json.loads(model.bundle.manifest.to_json())})

    async def describe(self, request: Request) -> Reply:
        question(request, frozenset())
        return Reply(self._page)

    def _find(self, asked: Question) -> LiveModel:
        return self._classifier.find(asked.target)

    async def _classified(self, asked: Question, model: LiveModel, call: Call) -> Answer:
        return await self._classifier.classify(model, asked.image_request(call))

    async def _explained(self, asked: Question, model: LiveModel, call: Call) -> Explanation:
        return await self._classifier.explain(model, asked.image_request(call), asked.explained)

    async def _listed(self, asked: Question, model: None, call: Call) -> list[LiveModel]:  # noqa: ARG002 - as all answers
        return [live for live in self._classifier.registry.live() if call.caller.may_ask(live.name)]

    async def _described(self, asked: Question, model: LiveModel, call: Call) -> LiveModel:  # noqa: ARG002 - as all answers
        return model


def _line(photo: str, found: Answer | BaseException) -> str:
    record = (
        records.failed(photo, failure_of(found)) if isinstance(found, BaseException) else records.answered(photo, found)
    )
    return json.dumps(record) + "\n"


def _echo(asked: Question) -> list[Header]:
    return [(REQUEST_ID.encode(), asked.id.encode())] if asked.id else []
