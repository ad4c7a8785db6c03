# The service's image, built from the repository's root:
#
#   docker build --file deploy/service.Dockerfile --tag anther-service:cpu .
#   docker build --file deploy/service.Dockerfile --tag anther-service:gpu --build-arg EXTRA=gpu .
#
# EXTRA=gpu brings ONNX Runtime for CUDA 13 with the CUDA and cuDNN libraries, all as Python packages: the host gives
# only the driver. Where pip needs a configuration of its own, add `--secret id=pip.conf,src=...`; nothing of it stays.

# Every stage starts here, so that the environment finds in the last one the Python that it was made with.
ARG BASE=python:3.11-slim-bookworm

# pip, and what builds, live in an environment of their own, and stay behind. The locks fix every package by its digest.
FROM ${BASE} AS installer
COPY deploy/build.lock /
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /opt/build && python3 -m venv --without-pip /opt/anther && \
    /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement /build.lock

FROM installer AS dependencies
ARG EXTRA=cpu
COPY deploy/${EXTRA}.lock /requirements.lock
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/build/bin/pip --python /opt/anther/bin/python install --no-cache-dir --require-hashes \
        --requirement /requirements.lock

FROM installer AS package
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY anther anther
COPY bundle bundle
COPY service service
COPY training training
RUN /opt/build/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheel . && \
    /opt/build/bin/pip --python /opt/anther/bin/python install --no-index --no-deps --prefix /package /wheel/*.whl

# What is in the image, by name, version and licence.
FROM installer AS bom
COPY --from=dependencies /opt/anther /opt/anther
COPY --from=package /package /opt/anther
COPY deploy/bom.py /
RUN /opt/build/bin/python /bom.py /opt/anther/bin/python /bom

# A strict umask where the repository was cloned must not hide the models from the service's user.
FROM ${BASE} AS models
COPY models /models
RUN chmod -R a+rX,go-w /models

FROM ${BASE}
# Official images come without the standard library's bytecode, and a read-only root could never keep it.
RUN python3 -m compileall -q -x 'site-packages|dist-packages' \
    "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
# From what changes seldom to what changes often.
COPY --from=dependencies /opt/anther /opt/anther
COPY --from=models /models /models
COPY --from=package /package /opt/anther
COPY --from=bom /bom /usr/share/doc/anther

# ONNX Runtime reports its use to its maker from release 1.29 on, unless told not to.
ENV PATH=/opt/anther/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    ANTHER_HOST=0.0.0.0 \
    ANTHER_MODELS=/models
LABEL org.opencontainers.image.title="Anther" \
      org.opencontainers.image.description="Image classification over gRPC and HTTP with the preprocessing of its training" \
      org.opencontainers.image.licenses="Apache-2.0"

USER 10001:10001
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
# http.client takes no notice of proxy variables; -I and -S spare the start of what the check does not need.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["python", "-IS", "-c", \
    "import http.client, os, sys; \
    ops = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('ANTHER_OPS_PORT', 8002)), timeout=2); \
    ops.request('GET', '/readyz'); \
    sys.exit(ops.getresponse().status != 200)"]
ENTRYPOINT ["anther"]
CMD ["serve"]
