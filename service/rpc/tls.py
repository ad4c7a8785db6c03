"""Credentials of the gRPC port that follow the server's certificates."""

from typing import Any

import grpc

from service.identity.certificates import Certificates, Pair


def credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Each new connection gets the current pair; those that are there keep what they began with."""
    served = certificates.current

    def changed() -> Any:  # None for no change, which gRPC's types have forgotten
        nonlocal served
        found = certificates.current
        if found is served:
            return None
        served = found
        return _configuration(found)

    asks_clients = served.client_ca is not None
    return grpc.dynamic_ssl_server_credentials(_configuration(served), changed, asks_clients)


def _configuration(pair: Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)], pair.client_ca)
