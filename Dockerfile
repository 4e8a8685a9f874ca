# The gateway as a container: what requirements.lock names, the source, a user without rights, data in one volume.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/gateway
COPY requirements.lock .
RUN /opt/gateway/bin/pip install --quiet --require-hashes -r requirements.lock
COPY gateway /opt/gateway/src/gateway
COPY migrations /opt/gateway/src/migrations
COPY clients/js /opt/gateway/src/clients/js
# The same command a checkout has; compiled here, because the file system is read-only later.
RUN printf '%s\n' '#!/opt/gateway/bin/python' 'import sys' 'from gateway.cli import main' 'sys.argv[0] = "gateway"' \
      'sys.exit(main())' > /opt/gateway/bin/gateway \
 && chmod 755 /opt/gateway/bin/gateway \
 && /opt/gateway/bin/python -m compileall -q /opt/gateway/src

FROM python:${PYTHON}-slim
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin gateway \
 && install -d -o gateway -g gateway -m 700 /var/lib/gateway
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONPATH=/opt/gateway/src \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_HOST=0.0.0.0 \
    GATEWAY_PORT=8000 \
    GATEWAY_DATABASE_URL=sqlite+aiosqlite:////var/lib/gateway/gateway.db
USER gateway
WORKDIR /var/lib/gateway
VOLUME /var/lib/gateway
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['GATEWAY_PORT']}/healthz\", timeout=4)"]
ENTRYPOINT ["gateway"]
CMD ["serve"]
