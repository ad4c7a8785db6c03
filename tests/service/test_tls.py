"""Both ports under TLS: certificates change under load without a failed call; clients need one of the right issuer."""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from anther.v1 import classifier_pb2 as pb
from anther.v1.classifier_pb2_grpc import ImageClassifierStub
from tests.authority import Authority, Issued

OURS, OTHERS = Authority("ours"), Authority("others")
NEW_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@contextlib.contextmanager
def dialled(port: int, root: bytes, client: Issued | None = None) -> Iterator[ImageClassifierStub]:
    key, certificate = (None, None) if client is None else (client.key, client.certificate)
    credentials = grpc.ssl_channel_credentials(root, key, certificate)
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, NEW_CONNECTION) as channel:
        yield ImageClassifierStub(channel)


def answers(port: int, root: bytes, client: Issued | None = None) -> bool:
    """Over a new connection of gRPC's."""
    with dialled(port, root, client) as stub:
        try:
            return bool(stub.ListModels(pb.ListModelsRequest(), timeout=20).models)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False


def http_answers(port: int, root: bytes, folder: Path, client: Issued | None = None) -> bool:
    """Over a new connection of HTTP's."""
    context = ssl.create_default_context(cadata=root.decode())
    if client is not None:
        context.load_cert_chain(*client.write(folder / "client"))
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == 200
        except (ssl.SSLError, ConnectionError):
            return False


def test_certificates_change_under_load_without_a_failed_call(
    start_edge: Callable[..., Any], tmp_path: Path, pictures: dict[str, bytes]
) -> None:
    certificate, key = OURS.issue().write(tmp_path)
    edge = start_edge(tls_cert=str(certificate), tls_key=str(key), lanes=2)
    both = OURS.pem + OTHERS.pem
    stop, failures, calls = threading.Event(), [], []

    def ask_always() -> None:
        """Over one connection that stays and, again and again, a new one."""
        with dialled(edge.port, both) as stub:
            while not stop.is_set():
                try:
                    stub.Classify(pb.ClassifyRequest(image=pictures["daisy"]), timeout=60)
                    calls.append(answers(edge.port, both) and http_answers(edge.http.port, both, tmp_path))
                except grpc.RpcError as error:
                    failures.append(error)

    threads = [threading.Thread(target=ask_always) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for authority in (OTHERS, OURS, OTHERS):
            authority.issue().write(tmp_path)
            edge.follower.check()
            assert answers(edge.port, authority.pem)
            assert http_answers(edge.http.port, authority.pem, tmp_path)
        assert not answers(edge.port, OURS.pem)
        assert not http_answers(edge.http.port, OURS.pem, tmp_path)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert calls
    assert all(calls)


def test_a_half_written_pair_changes_nothing(start_edge: Callable[..., Any], tmp_path: Path) -> None:
    issued = OURS.issue()
    certificate, key = issued.write(tmp_path)
    edge = start_edge(tls_cert=str(certificate), tls_key=str(key))
    for spoilt in (OTHERS.issue().key, issued.key[:50], b""):
        key.write_bytes(spoilt)
        edge.follower.check()
        assert answers(edge.port, OURS.pem)
        assert http_answers(edge.http.port, OURS.pem, tmp_path)
        assert edge.sample("anther_identity_files_in_use", files="certificates") == 0
    expires = edge.sample("anther_tls_certificate_expiry_timestamp_seconds", certificate="server")
    assert expires == issued.expires.timestamp()


def test_clients_need_a_certificate_of_the_authority_as_it_is_now(
    start_edge: Callable[..., Any], tmp_path: Path
) -> None:
    certificate, key = OURS.issue().write(tmp_path)
    client_ca = tmp_path / "clients.crt"
    client_ca.write_bytes(OURS.pem)
    edge = start_edge(tls_cert=str(certificate), tls_key=str(key), tls_client_ca=str(client_ca))
    clients = {"ours": OURS.issue("client"), "others": OTHERS.issue("client"), "none": None}

    def accepted() -> list[str]:
        found = [name for name, client in clients.items() if answers(edge.port, OURS.pem, client)]
        assert found == [
            name for name, client in clients.items() if http_answers(edge.http.port, OURS.pem, tmp_path, client)
        ]
        return found

    assert accepted() == ["ours"]
    client_ca.write_bytes(OTHERS.pem)
    edge.follower.check()
    assert accepted() == ["others"]


def test_plain_text_gets_no_answer(start_edge: Callable[..., Any], tmp_path: Path) -> None:
    certificate, key = OURS.issue().write(tmp_path)
    edge = start_edge(tls_cert=str(certificate), tls_key=str(key))
    with pytest.raises(grpc.RpcError):
        edge.stub.ListModels(pb.ListModelsRequest(), timeout=20)
    connection = http.client.HTTPConnection("127.0.0.1", edge.http.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/v2/health/ready")
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            connection.getresponse()


def test_no_session_outlives_the_authority_of_its_client(start_edge: Callable[..., Any], tmp_path: Path) -> None:
    """`ssl` keeps sessions of TLS 1.2, so clients that show a certificate need 1.3."""
    certificate, key = OURS.issue().write(tmp_path)
    authority = tmp_path / "clients.pem"
    authority.write_bytes(OURS.pem)
    edge = start_edge(tls_cert=str(certificate), tls_key=str(key), tls_client_ca=str(authority))
    context = ssl.create_default_context(cadata=OURS.pem.decode())
    context.load_cert_chain(*OURS.issue().write(tmp_path / "client"))
    session = None
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", edge.http.port), 20) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secured,
        ):
            secured.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert secured.recv(1000).startswith(b"HTTP/1.1 200 ")
            assert not secured.session_reused
            session = secured.session
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", edge.http.port), 20) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")
