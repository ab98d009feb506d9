# The appliance with an engine environment in it. Build: docker build --build-arg ENGINE=cpu -t appliance .
#
#   ENGINE=cpu    vLLM for CPUs is baked in (4 GiB)
#   ENGINE=cuda   vLLM for NVIDIA GPUs is baked in; run it with `--gpus all`
#   ENGINE=none   small; the environment is provisioned into the state volume at the first start
#
# On a Mac run the appliance on the host instead: no container there reaches Metal. Containers then ask it at
# http://host.docker.internal:8000 (docs/guides/containers.md).
ARG PYTHON=docker.io/library/python:3.12-slim-bookworm
ARG ENGINE=cpu

FROM ${PYTHON} AS base
ENV PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# libnuma1 is what vLLM's compiled part for CPUs links to; tini reaps what a killed shim orphans, and passes signals on.
# Their versions are the base image's distribution's, which the digest of PYTHON pins.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 tini \
    && rm -rf /var/lib/apt/lists/*

FROM base AS build
WORKDIR /source
RUN python -m venv /opt/appliance
COPY packaging/control.txt packaging/control.txt
# Every file's hash is in the list: nothing else is installed, whatever an index offers.
RUN /opt/appliance/bin/pip install --require-hashes --only-binary :all: --requirement packaging/control.txt
COPY LICENSE README.md pyproject.toml ./
COPY appliance appliance
COPY migrations migrations
COPY profiles profiles
RUN python -m pip wheel --no-deps --wheel-dir /wheels . \
    && /opt/appliance/bin/pip install --no-deps --no-index --find-links /wheels appliance \
    && /opt/appliance/bin/pip check

FROM base AS runtime
RUN groupadd --gid 10001 appliance \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/appliance --shell /usr/sbin/nologin appliance \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/appliance \
    && install --directory /etc/appliance
COPY --from=build /opt/appliance /opt/appliance
COPY packaging/container/healthcheck.py /usr/local/lib/appliance/healthcheck.py
COPY packaging/container/model-runner.yaml /etc/appliance/model-runner.yaml
ENV PATH=/opt/appliance/bin:$PATH APPLIANCE_HOME=/var/lib/appliance HOME=/var/lib/appliance
WORKDIR /etc/appliance

FROM runtime AS engine-none

FROM runtime AS bake-cpu
# Its preflight imports vLLM and proves which platform it selects, so that a broken image is not built.
RUN APPLIANCE_HOME=/opt/engine APPLIANCE_ENVIRONMENT__ACCELERATOR=cpu APPLIANCE_SERVER__HOST=127.0.0.1 \
    appliance env install --file /etc/appliance/model-runner.yaml \
    && ln -s /opt/engine/environments/vllm-* /opt/engine/current

FROM runtime AS bake-cuda
# No GPU answers while an image is built: the preflight is made when the container starts.
RUN python -m venv /opt/engine/current \
    && /opt/engine/current/bin/pip install --no-deps --only-binary :all: --requirement \
    "$(/opt/appliance/bin/python -c 'import appliance; print(appliance.__path__[0])')/engines/requirements/vllm-cuda-linux-x86_64.txt"

FROM runtime AS engine-cpu
COPY --from=bake-cpu /opt/engine /opt/engine
ENV APPLIANCE_ENVIRONMENT__PYTHON=/opt/engine/current/bin/python

FROM runtime AS engine-cuda
COPY --from=bake-cuda /opt/engine /opt/engine
ENV APPLIANCE_ENVIRONMENT__PYTHON=/opt/engine/current/bin/python

# hadolint ignore=DL3006
FROM engine-${ENGINE}
USER 10001:10001
VOLUME /var/lib/appliance
EXPOSE 8000
# Ready is every model that loads at start-up; weights may have to be fetched first.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 \
    CMD ["python", "/usr/local/lib/appliance/healthcheck.py"]
# Answers are let finish on SIGTERM: give `docker stop` at least the longest drain_timeout.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "appliance"]
CMD ["up", "--file", "/etc/appliance/model-runner.yaml"]
