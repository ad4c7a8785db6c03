"""Triton's client and `anther serve` as users start it."""

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.service.rpc.inference.over_http import HttpClient


def test_a_model_is_unloaded_and_loaded_again_where_the_server_allows_it(
    start_server, tmp_path, publish_bundle, image_input, make_picture
) -> None:
    publish_bundle(tmp_path / "models")
    picture = image_input(make_picture((0, 255, 0)))
    server = start_server("--control", "--http-port", "0", models=tmp_path / "models")
    with (
        triton.InferenceServerClient(server.target) as client,
        HttpClient(server.http.removeprefix("http://")) as over_http,
    ):
        before = client.infer("flowers", [picture]).as_numpy("probabilities")
        client.unload_model("flowers")
        assert not client.is_model_ready("flowers")
        assert not client.is_server_ready()
        with pytest.raises(InferenceServerException) as raised:
            client.infer("flowers", [picture])
        assert raised.value.status() in {"StatusCode.UNAVAILABLE", "StatusCode.NOT_FOUND"}
        client.load_model("flowers")
        assert client.is_model_ready("flowers")
        assert np.array_equal(client.infer("flowers", [picture]).as_numpy("probabilities"), before)
        with pytest.raises(InferenceServerException, match="trees"):
            client.load_model("trees")
        over_http.unload_model("flowers")
        assert not client.is_model_ready("flowers")
        over_http.load_model("flowers")
        assert np.array_equal(over_http.infer("flowers", [picture]).as_numpy("probabilities"), before)
