# The Job's image: a slim Python, the locked requirements, the package, and nothing of what put them together.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS builder
WORKDIR /build
# The Job's file system is read-only, so it starts from bytecode made here; unchecked, so that no file's date matters.
ARG COMPILE="python -m compileall -q -j 0 --invalidation-mode unchecked-hash"
COPY requirements.txt .
# kubernetes.aio is the asyncio twin of the client: two fifths of all that is installed, and never imported.
RUN python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install --no-cache-dir --no-compile --require-hashes -r requirements.txt \
    && rm -r /venv/lib/python*/site-packages/kubernetes/aio \
    && $COMPILE /venv/lib
COPY bootstrap /app/bootstrap
RUN $COMPILE /app

FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="redis-bootstrap" \
      org.opencontainers.image.description="Forms a Redis Cluster of the pods behind a headless Service, as a Kubernetes Job"
COPY --from=builder /venv /venv
COPY --from=builder /app /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
USER 65532:65532
ENTRYPOINT ["python", "-m", "bootstrap"]
CMD ["apply"]
