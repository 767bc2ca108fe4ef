"""What the process `ops` tells Prometheus."""

from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest

from ops.deps import EXTENSION


def test_pages_are_counted_by_route_and_status(pages: Flask) -> None:
    browser = pages.test_client()
    for path in ("/login", "/login", f"/jobs/job_{'0' * 32}", "/jobs/job_1", "/static/ops.css"):
        browser.get(f"/ops{path}").close()
    browser.post("/ops/login")
    registry = CollectorRegistry()
    registry.register(pages.extensions[EXTENSION].metrics)
    lines = generate_latest(registry).decode().splitlines()

    def counted(method: str, route: str, status: int) -> str:
        labels = f'kind="plain",method="{method}",route="{route}",status="{status}"'
        [line] = [each for each in lines if f"headrace_ops_request_seconds_count{{{labels}}}" in each]
        return line.split()[-1]

    assert counted("GET", "/ops/login", 200) == "2.0"
    assert counted("POST", "/ops/login", 400) == "1.0"
    assert counted("GET", "/ops/jobs/{job_id}", 302) == "2.0"
    assert counted("GET", "/ops/static/{filename}", 200) == "1.0"
