# The proxy alone is the default:          docker build -t tinkex-proxy .
# With the sandbox upstream and the demo:  docker build -t tinkex-proxy:sandbox \
#                                            --build-arg LOCK=requirements-sandbox.lock .
# With what sends traces:                  docker build -t tinkex-proxy:otel \
#                                            --build-arg LOCK=requirements-otel.lock .

FROM python:3.11-slim AS build
ARG LOCK=requirements-runtime.lock
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src

# Dependencies before sources: their layers change seldom. Hashes, and no compiler.
COPY requirements-build.lock requirements-runtime.lock requirements-sandbox.lock requirements-otel.lock ./
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --only-binary=:all: -r requirements-build.lock
RUN python -m venv /opt/tinkex-proxy \
 && /opt/tinkex-proxy/bin/pip install --require-hashes --only-binary=:all: -r "$LOCK"

COPY pyproject.toml README.md LICENSE ./
COPY tinkex_proxy ./tinkex_proxy
RUN /opt/build/bin/hatchling build -t wheel -d /dist \
 && /opt/tinkex-proxy/bin/pip install --no-deps --no-index /dist/*.whl \
 && /opt/tinkex-proxy/bin/python -m compileall -q /opt/tinkex-proxy/lib \
 && /opt/tinkex-proxy/bin/tinkex-proxy version


FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tinkex \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/tinkex-proxy
COPY --from=build /opt/tinkex-proxy /opt/tinkex-proxy
# Inside a container loopback is nobody's: publish the port to 127.0.0.1 on the host instead.
ENV PATH=/opt/tinkex-proxy/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TINKEX_PROXY_STATE_DIR=/var/lib/tinkex-proxy \
    TINKEX_PROXY_SERVER__HOST=0.0.0.0
# The journal: models, calls and answers outlast the container that holds them.
VOLUME /var/lib/tinkex-proxy
USER 10001:10001
EXPOSE 8465
HEALTHCHECK --interval=15s --timeout=5s --start-period=5s --retries=3 \
  CMD ["tinkex-proxy", "status", "--health"]
ENTRYPOINT ["tinkex-proxy"]
CMD ["serve"]
