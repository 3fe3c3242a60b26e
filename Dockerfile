# The Job's image: a slim Python, the locked requirements and the package. Build tools stay in the builder stage.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS builder
WORKDIR /build
# The Job's file system is read-only, so the bytecode is compiled here. It is unchecked, so it does not depend on the
# dates of files.
ARG COMPILE="python -m compileall -q -j 0 --invalidation-mode unchecked-hash"
COPY requirements.txt .
# The package kubernetes has classes for every request (client/api) and every kind of object (client/models), and all of
# it again for asyncio (aio). The program uses only its connection, so the first and the last are left out, and the
# models, which other modules could import, have no bytecode. tests/manifests/test_image.py holds the program to that.
RUN python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install --no-cache-dir --no-compile --require-hashes -r requirements.txt \
    && rm -r /venv/lib/python*/site-packages/kubernetes/aio /venv/lib/python*/site-packages/kubernetes/client/api \
    && $COMPILE -x 'kubernetes/client/models/[a-z]' /venv/lib
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
