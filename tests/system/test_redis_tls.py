"""TLS to Sentinels and to the servers that they name, by Debian's Valkey: the embedded one is built without it."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from headrace import startup
from headrace.config import Settings
from headrace.connections.redis import redis_client
from headrace.errors import BrokerUnavailable
from headrace.stack.stack import Stack
from tests.chaos import certificates
from tests.system.tls_group import DEADLINE_S, TlsGroup, until


@pytest.fixture
def group(valkey_path: str, tmp_path: Path) -> Iterator[TlsGroup]:
    with TlsGroup(valkey_path, tmp_path / "group", certificates.make(tmp_path / "certificates")) as group:
        yield group


def settings_of(url: str) -> Settings:
    return Settings.load(redis_url=url)


def test_a_whole_system_works_by_sentinels_with_tls_and_follows_them_to_a_new_master(
    group: TlsGroup, tmp_path: Path
) -> None:
    env = {"REDIS_URL": group.url, "OPENAI_API_KEY": "", "HEADRACE_SIMULATOR__OUTPUT_TOKENS": "4"}
    with Stack(tmp_path / "state", ("--engine", "simulator"), env) as stack:
        headers = {"Authorization": f"Bearer {stack.report.api_key}"}
        http = httpx2.Client(base_url=stack.report.url, headers=headers, timeout=2 * DEADLINE_S)

        def answered() -> bool:
            response = http.post("/v1/jobs", json={"prompt": "Hello?", "max_wait": 300})
            if response.status_code == 503:
                return False
            job = http.get(f"/v1/jobs/{response.json()['id']}", params={"wait": 50}).json()
            return bool(job["status"] == "succeeded")

        assert answered()
        group.kill_first_sentinel()
        group.switch()
        until(answered, "No job is answered after the switch.")

        flower = httpx2.Client(base_url=stack.report.flower_url, auth=tuple(stack.report.flower_auth.split(":")))
        assert flower.get("/api/queues/length").raise_for_status().json()["active_queues"]
        for client in (http, flower):
            client.close()


def test_startup_lets_in_what_has_the_certificates_alone(group: TlsGroup, tmp_path: Path) -> None:
    startup.check_redis(settings_of(group.url))

    others = certificates.make(tmp_path / "others")
    own, authority = tmp_path / "certificates" / "own.pem", tmp_path / "certificates" / "authority.pem"
    refused = {
        group.url_with(ssl_ca_certs=others.authority, ssl_certfile=own): "CERTIFICATE_VERIFY_FAILED",
        group.url_with(ssl_ca_certs=authority, ssl_certfile=others.own): "No master found",
        group.url_with(ssl_ca_certs=authority): "No master found",
        group.url_with(): "CERTIFICATE_VERIFY_FAILED",
        group.url_with().replace("sentinels://", "sentinel://"): "No master found",
    }
    for url, reason in refused.items():
        with pytest.raises(BrokerUnavailable, match=reason):
            startup.check_redis(settings_of(url))


def test_certificate_is_not_checked_where_the_url_says_so(group: TlsGroup, tmp_path: Path) -> None:
    own = tmp_path / "certificates" / "own.pem"
    with redis_client(settings_of(group.url_with(ssl_cert_reqs="none", ssl_certfile=own))) as client:
        assert client.set("key", "value")
