"""Triton's asyncio client, many requests at once over one connection."""

import asyncio

import numpy as np
import pytest
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException


@pytest.mark.parametrize("connect", ["grpc"], indirect=True)
def test_the_asyncio_client_gets_the_same_answers(run, edge, client, image_input, colourful) -> None:
    expected = [client.infer("flowers", [image_input(each)]).as_numpy("probabilities") for each in colourful]

    async def ask() -> list[np.ndarray]:
        async with triton.InferenceServerClient(f"127.0.0.1:{edge.port}") as asking:
            assert await asking.is_server_ready()
            assert (await asking.get_model_metadata("flowers")).name == "flowers"
            calls = [asking.infer("flowers", [image_input(colourful[number % 5])]) for number in range(25)]
            return [answer.as_numpy("probabilities") for answer in await asyncio.gather(*calls)]

    for number, answer in enumerate(run(ask())):
        assert np.array_equal(answer, expected[number % 5])


def test_the_asyncio_client_streams_in_order(run, edge, image_input, colourful) -> None:
    async def ask() -> list[tuple[str, str | None]]:
        async def requests():
            for number in range(12):
                picture = b"<html>" if number == 5 else colourful[number % 5]
                yield {"model_name": "flowers", "inputs": [image_input(picture)], "request_id": str(number)}

        async with triton.InferenceServerClient(f"127.0.0.1:{edge.port}") as asking:
            return [
                (result.get_response().id, None) if error is None else ("", error.message())
                async for result, error in asking.stream_infer(requests())
            ]

    answers = run(ask())
    assert [found for found, _ in answers] == [str(number) if number != 5 else "" for number in range(12)]
    assert answers[5][1].startswith("image 0: the data is text or markup")


def test_the_asyncio_client_sees_the_status_of_a_refusal(run, edge, image_input) -> None:
    async def ask() -> None:
        async with triton.InferenceServerClient(f"127.0.0.1:{edge.port}") as asking:
            await asking.infer("flowers", [image_input(b"")])

    with pytest.raises(InferenceServerException) as raised:
        run(ask())
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
