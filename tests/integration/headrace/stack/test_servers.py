"""The embedded servers, for real: what was written is there after the server was killed."""

import os
import signal
import stat
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from headrace.errors import StackError
from headrace.stack.ports import free_port
from headrace.stack.postgres import Postgres
from headrace.stack.valkey import Valkey


def connect(postgres: Postgres) -> psycopg.Connection:
    return psycopg.connect(postgres.url.replace("+psycopg", ""), autocommit=True)


def test_rows_survive_when_the_postmaster_is_killed(tmp_path: Path) -> None:
    postgres = Postgres(tmp_path / "postgres", free_port())
    with postgres.running() as child:
        with connect(postgres) as connection:
            connection.execute("CREATE TABLE t (n int)")
            connection.execute("INSERT INTO t SELECT generate_series(1, 1000)")
        child.signal(signal.SIGKILL)
    with postgres.running(), connect(postgres) as connection:
        row = connection.execute("SELECT count(*) FROM t").fetchone()
        assert row == (1000,)


def test_postgres_listens_on_loopback_only_and_wants_its_password(tmp_path: Path) -> None:
    postgres = Postgres(tmp_path / "postgres", free_port())
    with postgres.running():
        with connect(postgres) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
            assert connection.execute("SHOW unix_socket_directories").fetchone() == ("",)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"postgresql://headrace:wrong@127.0.0.1:{postgres.port}/headrace")
    assert stat.S_IMODE((tmp_path / "postgres/password").stat().st_mode) == 0o600


def test_data_of_another_major_version_is_refused(tmp_path: Path) -> None:
    postgres = Postgres(tmp_path / "postgres", free_port())
    postgres.prepare()
    (postgres.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(StackError, match="written by Postgres 12"):
        postgres.prepare()


def test_a_lock_file_whose_pid_is_now_another_program_does_not_stop_postgres(tmp_path: Path) -> None:
    postgres = Postgres(tmp_path / "postgres", free_port())
    postgres.prepare()
    with subprocess.Popen(["sleep", "60"]) as other:
        (postgres.data / "postmaster.pid").write_text(f"{other.pid}\n{postgres.data}\n0\n{postgres.port}\n\n\n0\n")
        with postgres.running():
            assert postgres.is_ready()
        other.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has this trouble")
def test_root_gets_its_data_back_home_when_nobody_cannot_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.stack.postgres.can_map", lambda: False)
    tmp_path.chmod(0o700)
    postgres = Postgres(tmp_path / "postgres", free_port())
    for expected in (0, 1):
        with postgres.running(), connect(postgres) as connection:
            away = postgres.data.parent
            assert tmp_path not in away.parents
            connection.execute("CREATE TABLE IF NOT EXISTS t (n int)")
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (expected,)
            connection.execute("INSERT INTO t VALUES (1)")
        assert not away.exists()
        assert (tmp_path / "postgres/data/PG_VERSION").exists()


def test_writes_survive_when_valkey_is_killed(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path / "valkey", free_port())
    with valkey.running() as child:
        with redis.Redis.from_url(valkey.url) as client:
            client.rpush("list", *range(500))
        child.signal(signal.SIGKILL)
    with valkey.running(), redis.Redis.from_url(valkey.url) as client:
        assert client.llen("list") == 500


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    first = Valkey(tmp_path / "one", free_port())
    second = Valkey(tmp_path / "two", first.port)
    second.is_ready = lambda: False  # type: ignore[method-assign]
    with first.running(), pytest.raises(StackError, match="Address already in use"), second.running():
        pass


def test_embedded_valkey_has_a_password_that_its_command_line_does_not_show(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path / "valkey", free_port())
    with valkey.running():
        with redis.Redis.from_url(valkey.url) as client:
            assert client.ping()
        with redis.Redis(port=valkey.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    password = urlsplit(valkey.url).password
    assert password
    assert password not in " ".join(valkey.command().argv)
    private = {path.name: path.stat().st_mode & 0o077 for path in valkey.folder.iterdir() if path.is_file()}
    assert private["password"] == private["valkey.conf"] == 0
    assert Valkey(valkey.folder, valkey.port).url == valkey.url, "it survives a restart"
