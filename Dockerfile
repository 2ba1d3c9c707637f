# One image for every process of Creditlane: worker, migrate, api. The command says which.

FROM python:3.12-slim AS build
WORKDIR /source
COPY . .
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
RUN python -m venv /opt/creditlane \
    && wheel="$(ls /wheels/creditlane-*.whl)" \
    && /opt/creditlane/bin/pip install --no-cache-dir "${wheel}[worker,api]"

FROM python:3.12-slim
# A number that no host uses by accident, and no home, shell or password.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin creditlane
COPY --from=build /opt/creditlane /opt/creditlane
ENV PATH=/opt/creditlane/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER creditlane
WORKDIR /
# Fails when Redis or Postgres cannot be reached with this container's settings.
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s --retries=3 CMD ["creditlane", "status", "--json"]
# A worker finishes its batch, releases its leases and exits 0.
STOPSIGNAL SIGTERM
CMD ["creditlane", "worker"]
