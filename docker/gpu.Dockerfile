# A GPU worker: vLLM on CUDA, one worker per GPU. Give a container one GPU (`--gpus device=0`, or compose's device_ids),
# or `tensor_parallel_size` GPUs.
# `--build-arg ENGINE=cpu --build-arg BASE=python:3.13-slim` builds the same worker for a CPU, as a trial.
ARG BASE=nvidia/cuda:13.0.2-runtime-ubuntu24.04
FROM ${BASE}

ARG ENGINE=gpu
# Triton compiles small C programs when it loads a model, so the image needs a compiler and Python's headers.
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
COPY requirements requirements
RUN case "$ENGINE" in \
    gpu) pip install --no-cache-dir --no-deps --require-hashes -r requirements/core.txt -r requirements/gpu.txt ;; \
    cpu) pip install --no-cache-dir --no-deps --require-hashes \
    -r requirements/core.txt -r requirements/cpu.txt -r requirements/cuda.txt ;; \
    *) echo "ENGINE is gpu or cpu, not $ENGINE" >&2; exit 1 ;; esac
COPY . .
# Compiled here: the processes' user may not write to these folders, so each start would compile them again. Python's
# own library comes without compiled files in some base images.
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e . \
    && python -m compileall -q -x "/(site-packages|test|lib2to3)/" headrace api ops workers scheduler plugins migrations \
    "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && useradd --system --create-home --uid 10001 headrace \
    && install -d -o headrace /var/lib/headrace /home/headrace/.cache /home/headrace/.cache/huggingface
USER headrace
ENV HEADRACE_STATE=/var/lib/headrace
ENTRYPOINT ["docker/run"]
CMD ["gpu"]
