# The image of all processes without a local engine: web, ops, overflow, webhooks, plugins, control, beat, flower,
# release. It has no torch and no CUDA.
# The SDK of an actuator (docs/actuators.md) goes into an image of its own, for `control` alone:
#   docker build -f docker/api.Dockerfile --build-arg EXTRA=aws -t headrace-control .
FROM python:3.13-slim

WORKDIR /app
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY requirements/core.txt requirements/aws.txt requirements/kubernetes.txt requirements/
ARG EXTRA=
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements/core.txt ${EXTRA:+-r requirements/$EXTRA.txt}
COPY . .
# Compiled here: the processes' user may not write to these folders, so each start would compile them again. The base
# image's own library comes without compiled files.
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e . \
    && python -m compileall -q -x "/(site-packages|test|lib2to3)/" headrace api ops workers scheduler plugins migrations \
    "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && useradd --system --create-home --uid 10001 headrace \
    && install -d -o headrace /var/lib/headrace /var/lib/headrace/files /home/headrace/.cache /home/headrace/.cache/huggingface
USER headrace
ENV HEADRACE_STATE=/var/lib/headrace HEADRACE_HOST=0.0.0.0 OPS_HOST=0.0.0.0 FLOWER_HOST=0.0.0.0
# The argument is the name of a process in the Procfile.
ENTRYPOINT ["docker/run"]
CMD ["web"]
