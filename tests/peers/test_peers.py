"""Other people's clients and a server under TLS that asks for tokens. Tests of clients that are not here are skipped.

Node: `npm install --prefix FOLDER @grpc/grpc-js @grpc/proto-loader`, and NODE_PATH=FOLDER/node_modules. perf_analyzer:
`pip install perf-analyzer` in an environment of its own (glibc 2.38), and PERF_ANALYZER=FOLDER/bin/perf_analyzer.
"""

import base64
import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from tests.faults.victim import PATIENCE_S, Victim, started
from tests.secured import Secured, secure
from tests.service import conftest as service

models, pictures = service.models, service.pictures

ROOT = Path(__file__).parents[2]
PERF_ANALYZER = shutil.which(os.environ.get("PERF_ANALYZER", "perf_analyzer"))
NODE_PACKAGES = "require('@grpc/grpc-js'); require('@grpc/proto-loader')"
ASKED = "this server asks for a token"


@dataclass(frozen=True)
class Server:
    victim: Victim
    secured: Secured
    photos: dict[str, Path]  # by the label that they get

    @property
    def token(self) -> str:
        return self.secured.tokens["peer"]

    @property
    def authority(self) -> str:
        return str(self.secured.authority)

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}  # new ones each time: Triton's HTTP client writes into them

    @property
    def grpc(self) -> str:
        return f"localhost:{self.victim.port}"  # Node and others send no address as the name of a server (RFC 6066)

    @property
    def http(self) -> str:
        return f"localhost:{self.victim.http.rpartition(':')[2]}"


@pytest.fixture(scope="module")
def server(models: Path, pictures: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("peers")
    secured = secure(folder, ["peer"])
    photos = {label: folder / f"{label}.png" for label in pictures}
    for label, path in photos.items():
        path.write_bytes(pictures[label])
    with started(models, folder / "stderr.txt", *secured.tls, *secured.known, "--http-port", "0") as victim:
        yield Server(victim, secured, photos)
        victim.prove_log()
        assert secured.tokens["peer"] not in victim.errors.read_text()


def output_of(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=4 * PATIENCE_S, env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def curl(server: Server) -> Callable[..., str]:
    """`curl(path, *options)`: what it prints."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    command = ("curl", "--silent", "--show-error", "--cacert", server.authority)
    return lambda path, *options: output_of(*command, *options, f"https://{server.http}{path}")


def test_curl_classifies_a_photo_and_a_form_of_several(server: Server, curl: Callable[..., str]) -> None:
    header = ("-H", f"authorization: Bearer {server.token}")
    for label, photo in server.photos.items():
        answer = json.loads(curl("/v1/classify", *header, "--data-binary", f"@{photo}"))
        assert answer["predictions"][0]["label"] == label
    form = [option for photo in server.photos.values() for option in ("-F", f"photo=@{photo}")]
    lines = [json.loads(line) for line in curl("/v1/classify", *header, *form).splitlines()]
    assert [line["predictions"][0]["label"] for line in lines] == list(server.photos)


def test_curl_without_a_token_gets_a_problem_and_health_all_the_same(server: Server, curl: Callable[..., str]) -> None:
    problem = json.loads(curl("/v1/classify", "--data-binary", f"@{server.photos['daisy']}"))
    assert (problem["status"], problem["reason"]) == (401, "UNAUTHENTICATED")
    assert problem["detail"].startswith(ASKED)
    assert json.loads(curl("/v2/health/ready", "--http2")) == {"ready": True}


@pytest.fixture(params=[triton_grpc, triton_http], ids=["grpc", "http"])
def triton(server: Server, request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """Triton's module, and a client of it."""
    if request.param is triton_grpc:
        client = triton_grpc.InferenceServerClient(server.grpc, ssl=True, root_certificates=server.authority)
    else:
        client = triton_http.InferenceServerClient(server.http, ssl=True, ssl_options={"ca_certs": server.authority})
    with client:
        yield request.param, client


def tensor(module: Any, *images: bytes) -> Any:
    array = np.array(images, dtype=object).reshape(-1, 1)
    found = module.InferInput("image", array.shape, "BYTES")
    found.set_data_from_numpy(array)
    return found


def test_tritons_clients_infer(server: Server, triton: tuple[Any, Any]) -> None:
    module, client = triton
    assert client.is_server_ready()
    assert client.is_model_ready("flowers")
    assert "flowers" in str(client.get_model_metadata("flowers", headers=server.headers))
    images = [photo.read_bytes() for photo in server.photos.values()]
    found = client.infer("flowers", [tensor(module, *images)], headers=server.headers)
    assert found.as_numpy("probabilities").argmax(axis=1).tolist() == [0, 1, 2]


def test_tritons_clients_without_a_token_get_the_sentence(server: Server, triton: tuple[Any, Any]) -> None:
    module, client = triton
    with pytest.raises(InferenceServerException, match=ASKED) as raised:
        client.infer("flowers", [tensor(module, server.photos["daisy"].read_bytes())])
    assert raised.value.status() in {"StatusCode.UNAUTHENTICATED", "401"}


@pytest.fixture
def node(server: Server) -> Callable[[str], Any]:
    """`node(token)`: what `peer.js` prints."""
    if shutil.which("node") is None:
        pytest.skip("there is no Node")
    if subprocess.run(["node", "-e", NODE_PACKAGES], capture_output=True, check=False).returncode != 0:
        pytest.skip("Node finds no @grpc/grpc-js and @grpc/proto-loader; NODE_PATH tells it where they are")
    script, proto = Path(__file__).with_name("peer.js"), ROOT / "proto/anther/v1/classifier.proto"
    command = ("node", str(script), str(proto), server.grpc, server.authority, *map(str, server.photos.values()))
    return lambda token: json.loads(output_of(*command, ANTHER_TOKEN=token))


def test_node_classifies_by_calls_and_by_a_stream(server: Server, node: Callable[[str], Any]) -> None:
    expected = [[f"node-{number}", label] for number, label in enumerate(server.photos)]
    assert node(server.token) == {"calls": expected, "stream": expected}


def test_node_with_a_wrong_token_gets_the_sentence(node: Callable[[str], Any]) -> None:
    found = node("anther_wrong")
    assert found["code"] == "UNAUTHENTICATED"
    assert found["message"].startswith(ASKED)


@pytest.mark.skipif(PERF_ANALYZER is None, reason="no perf_analyzer is on the path, and PERF_ANALYZER names none")
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_perf_analyzer_measures(server: Server, protocol: str, tmp_path: Path) -> None:
    reached = {
        "grpc": ["-u", server.grpc, "--ssl-grpc-use-ssl", "--ssl-grpc-root-certifications-file", server.authority],
        "http": ["-u", f"https://{server.http}", "--ssl-https-verify-peer", "1", "--ssl-https-verify-host", "2",
                 "--ssl-https-ca-certificates-file", server.authority],
    }[protocol]  # fmt: skip
    data, report = tmp_path / "data.json", tmp_path / "report.csv"
    photo = server.photos["daisy"].read_bytes()
    element = base64.b64encode(len(photo).to_bytes(4, "little") + photo).decode()
    data.write_text(json.dumps({"data": [{"image": {"b64": element}}]}))
    output_of(
        str(PERF_ANALYZER), "-m", "flowers", "-i", protocol, *reached, "-H", f"authorization: Bearer {server.token}",
        "--input-data", str(data), "--concurrency-range", "4", "--measurement-mode", "count_windows",
        "--measurement-request-count", "50", "-s", "90", "-f", str(report),
    )  # fmt: skip
    with report.open(newline="") as file:
        assert float(next(csv.DictReader(file))["Inferences/Second"]) > 0
