"""Triton's client and `anther serve` as users start it."""

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def test_a_model_is_unloaded_and_loaded_again_where_the_server_allows_it(
    start_server, tmp_path, publish_bundle, image_input, make_picture
) -> None:
    publish_bundle(tmp_path / "models")
    picture = image_input(make_picture((0, 255, 0)))
    with triton.InferenceServerClient(start_server("--control", models=tmp_path / "models").target) as client:
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
