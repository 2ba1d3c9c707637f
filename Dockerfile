# One image for every process of Creditlane: worker, migrate, api. The command says which.

# `make digests` pins the tags to what they mean today.
FROM python:3.12.16-slim-trixie AS build
WORKDIR /source
# Every package is one of the lock, by its hash. Before the source, so that a change of that installs none of them anew.
COPY requirements/image.txt requirements/build.txt requirements/
RUN python -m venv /opt/creditlane \
    && /opt/creditlane/bin/pip install --no-cache-dir --require-hashes --requirement requirements/image.txt \
    && python -m pip install --no-cache-dir --require-hashes --requirement requirements/build.txt
COPY . .
RUN python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --no-index --wheel-dir /wheels . \
    && /opt/creditlane/bin/pip install --no-cache-dir --no-deps --no-index /wheels/creditlane-*.whl \
    && /opt/creditlane/bin/pip check

FROM python:3.12.16-slim-trixie
# A number that no host uses by accident, and no home, shell or password.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin creditlane
COPY --from=build /opt/creditlane /opt/creditlane
ENV PATH=/opt/creditlane/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER creditlane
WORKDIR /
# Of the command below. It asks no server, so that a fault of theirs does not make every worker start again.
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s --retries=3 CMD ["creditlane", "worker", "alive"]
# A worker finishes its batch, releases its leases and exits 0.
STOPSIGNAL SIGTERM
CMD ["creditlane", "worker"]
