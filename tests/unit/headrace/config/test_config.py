"""Settings from the environment and the file, and what is said of wrong ones."""

import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from headrace.config import PROJECT_ROOT, CostSettings, PoolSettings, Settings
from headrace.config.pools import DEFAULT_MODEL
from headrace.domain.queues import Lane
from headrace.errors import ConfigError

Load = Callable[[str], Settings]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("STATE", "ENGINE", "MODEL", "MODEL_DIR", "LEASE_S", "CONFIG"):
        monkeypatch.delenv(f"HEADRACE_{name}", raising=False)


def write(folder: Path, text: str) -> str:
    path = folder / "headrace.toml"
    path.write_text(text)
    return str(path)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads the settings from a file with this text."""

    def from_file(text: str) -> Settings:
        monkeypatch.setenv("HEADRACE_CONFIG", write(tmp_path, text))
        return Settings.load()

    return from_file


def test_laptop_needs_no_setting(load: Load) -> None:
    settings = load("")

    assert settings.lane(Lane.BATCH).max_wait_s == 24 * 3600
    assert settings.state_dir == PROJECT_ROOT / ".headrace"
    assert settings.openai_api_key is None


def test_settings_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CONFIG", "/nowhere/headrace.toml")

    with pytest.raises(ConfigError, match=r"/nowhere/headrace\.toml"):
        Settings.load()


def test_committed_file_is_valid() -> None:
    settings = Settings.load()

    assert set(settings.lanes) == set(Lane)
    assert "gpt-4o-mini" in settings.prices


def test_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    monkeypatch.setenv("HEADRACE_LEASE_S", "4")

    settings = load("lease_s = 7\nmax_attempts = 9")

    assert (settings.lease_s, settings.max_attempts) == (4, 9)


def test_options_of_an_engine_and_adapters_come_from_the_file_and_the_environment(
    monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    text = """
        [pools.chat.adapters]
        sql = "adapters/sql"
        [pools.chat.engine_options]
        tensor_parallel_size = 2
        speculative_config = { method = "ngram", num_speculative_tokens = 3 }
    """
    monkeypatch.setenv("HEADRACE_POOLS__CHAT__ENGINE_OPTIONS__SPECULATIVE_CONFIG__NUM_SPECULATIVE_TOKENS", "5")
    monkeypatch.setenv("HEADRACE_POOLS__CHAT__ENGINE_OPTIONS__DTYPE", "bfloat16")
    monkeypatch.setenv("HEADRACE_POOLS__CHAT__ADAPTERS__MAIL", "org/mail")

    pool = load(text).served_pool

    assert pool.adapters == {"sql": "adapters/sql", "mail": "org/mail"}
    guesses = pool.engine_options["speculative_config"]
    assert (guesses["method"], int(guesses["num_speculative_tokens"])) == ("ngram", 5)
    assert (pool.engine_options["tensor_parallel_size"], pool.engine_options["dtype"]) == (2, "bfloat16")


def test_an_adapter_has_another_name_than_its_model(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"pools\.chat.*an adapter has the name of its model, 'm'"):
        load('[pools.chat]\nmodel = "m"\nadapters = { m = "folder" }')


def test_model_and_engine_of_the_first_pool_can_be_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MODEL", "some/model")
    monkeypatch.setenv("HEADRACE_ENGINE", "simulator")

    pool = Settings.load().pools["chat"]

    assert (pool.model, pool.engine, pool.max_running) == ("some/model", "simulator", 32)


@pytest.mark.parametrize(("given", "most"), [("", 20), ("5", 5), ("0", 0), ("-1", 20), ("100", 20)])
def test_as_many_alternatives_can_be_asked_for_as_vllm_lets_through(
    given: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_POOLS__CHAT__ENGINE_OPTIONS__MAX_LOGPROBS", given)

    assert Settings.load().served_pool.most_logprobs == most


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.setenv("HEADRACE_CONFIG", "")

    settings = Settings.load()

    assert settings.openai_api_key is None
    assert "gpt-4o-mini" in settings.prices


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("lease_s = -1", "lease_s"),
        ("drain_s = inf", "drain_s"),
        ("[pools.chat]\nmax_run_s = inf", "pools.chat.max_run_s"),
        ("[lanes.low]\nmax_wait_s = inf", "lanes.low.max_wait_s"),
        ("[lanes.low]\nmax_wait_s = 1e12", "lanes.low.max_wait_s"),
        ("[pools.chat.lanes.low]\ninteractive_max_wait_s = 1e12", "interactive_max_wait_s"),
        ("metrics_port = 70000", "metrics_port"),
        ("keep_samples_days = 0", "keep_samples_days"),
        ("keep_texts_days = 0", "keep_texts_days"),
        ("keep_texts_days = 10_001", "keep_texts_days"),
        ("keep_texts_days = true", "keep_texts_days"),
        ("[pools.chat]\nmax_running = 0", "pools.chat.max_running"),
        ("[pools.chat]\nmax_runing = 3", "pools.chat.max_runing"),
        ("[pools.chat]\nengine_options = { max_logprobs = 'all' }", "pools.chat.engine_options"),
        ("[lanes.urgent]\ndepth_cap = 1", "urgent"),
        ("[prices.m]\ninput_usd_per_mtok = -1", "input_usd_per_mtok"),
        ("lease_s =", "not valid TOML"),
    ],
)
def test_wrong_setting_is_named(text: str, named: str, load: Load) -> None:
    with pytest.raises(ConfigError, match=named):
        load(text)


def test_a_file_that_is_not_in_utf_8_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "headrace.toml"
    file.write_bytes("# Grüße".encode("latin-1"))
    monkeypatch.setenv("HEADRACE_CONFIG", str(file))
    with pytest.raises(ConfigError, match="is not in UTF-8: save it again"):
        Settings.load()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    monkeypatch.setenv("HEADRACE_PEPPER", "canary-pepper")

    assert "canary" not in repr(Settings.load())


def test_lane_that_is_set_in_part_keeps_the_rest_of_its_defaults(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    monkeypatch.setenv("HEADRACE_LANES__HIGH__MAX_WAIT_S", "10")

    settings = load("[lanes.low]\ndepth_cap = 100")

    low, high = settings.lane(Lane.LOW), settings.lane(Lane.HIGH)
    assert (low.depth_cap, low.max_wait_s) == (100, 4 * 3600)
    assert (high.max_wait_s, high.takes) == (10, 10)


FAST = """
    [lanes.high]
    depth_cap = 100
    [pools.chat]
    model = "large"
    [pools.fast]
    model = "small"
    latency_goal_s = 2.5
    [pools.fast.lanes.high]
    max_wait_s = 20
    takes = 3
"""


def test_a_pool_has_lanes_and_a_latency_goal_of_its_own(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    monkeypatch.setenv("HEADRACE_POOLS__FAST__LANES__HIGH__DEPTH_CAP", "7")

    settings = load(FAST)

    high = settings.lane(Lane.HIGH, "fast")
    assert (high.depth_cap, high.takes, high.backlog_cap_tokens) == (7, 3, 1_000_000)
    assert [high.default_max_wait_s(is_interactive=interactive) for interactive in (True, False)] == [2.5, 20]
    # A lane that the pool does not name is that of all pools, but for callers who wait.
    low = settings.lane(Lane.LOW, "fast")
    assert [low.default_max_wait_s(is_interactive=interactive) for interactive in (True, False)] == [2.5, 4 * 3600]
    for pool in (None, "chat", "overflow"):
        assert settings.lane(Lane.HIGH, pool) == settings.lanes[Lane.HIGH]
        assert settings.lane(Lane.HIGH, pool).depth_cap == 100


def test_a_goal_does_not_prolong_a_shorter_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_CONFIG", write(tmp_path, FAST + "interactive_max_wait_s = 1.5"))

    assert Settings.load().lane(Lane.HIGH, "fast").default_max_wait_s(is_interactive=True) == 1.5


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("latency_goal_s = 0", r"pools\.fast\.latency_goal_s.*greater than 0"),
        ("lanes = { urgent = { takes = 2 } }", r"pools\.fast\.lanes\.urgent.*'high', 'normal', 'low' or 'batch'"),
        ("lanes = { high = { takse = 2 } }", r"pools\.fast\.lanes\.high\.takse"),
        ("lanes = { high = { depth_cap = 0 } }", r"pools\.fast\.lanes\.high\.depth_cap.*greater than 0"),
        ('engine = "openai"\nlatency_goal_s = 2', r"pools\.fast.*'latency_goal_s' is for .*: remove 'latency_goal_s'"),
        ('engine = "openai"\nlanes = { high = { takes = 2 } }', r"pools\.fast.*remove 'lanes', or set \[lanes\]"),
    ],
)
def test_a_wrong_setting_of_a_fast_pool_is_named_with_what_is_right(text: str, named: str, load: Load) -> None:
    with pytest.raises(ConfigError, match=named):
        load(f"[pools.fast]\n{text}")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[lane.high]\nmax_wait_s = 1", r"sets 'lane', .* Did you mean 'lanes'\?"),
        ("leese_s = 1", r"sets 'leese_s', .* Did you mean 'lease_s'\?"),
        ("zzz = 1", "sets 'zzz', which is no setting.$"),
        ("[lanes.hihg]\nmax_wait_s = 1", "lanes.hihg"),
        ("[lanes.high]\ndepthcap = 1", "lanes.high.depthcap"),
    ],
)
def test_setting_that_does_not_exist_is_named(text: str, named: str, load: Load) -> None:
    with pytest.raises(ConfigError, match=named):
        load(text)


def test_wrong_value_is_reported_with_the_variable_that_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_LEASE_S", "abc")

    with pytest.raises(ConfigError, match=r"lease_s \(HEADRACE_LEASE_S\): .* Got 'abc'"):
        Settings.load()


PAID = """
    [pools.chat]
    engine = "openai"
    model = "gpt-4o-mini"
    [prices."gpt-4o-mini"]
    input_usd_per_mtok = "0.15"
    output_usd_per_mtok = "0.60"
    version = "test"
    source = "test"
"""


def test_a_pool_of_the_paid_api_is_answered_by_its_own_model_and_knows_no_limit(load: Load) -> None:
    second = '[pools.large]\nengine = "openai"\nmodel = "gpt-4o"\n[pools.own]\nmodel = "m"'

    settings = load(PAID + second)

    assert (settings.own_pools, settings.paid_pools) == (("own",), ("chat", "large"))
    assert settings.overflow.models == {"gpt-4o-mini": "gpt-4o-mini", "gpt-4o": "gpt-4o"}
    assert settings.served_pool.max_model_tokens is None


def test_only_a_model_that_answers_jobs_can_be_told_how_much_to_think() -> None:
    def load(*effort_models: str) -> Settings:
        overflow = {"model": "gpt-4o-mini", "models": {"own": "gpt-5"}, "effort_models": effort_models}
        pools = {"own": PoolSettings(model="own"), "paid": PoolSettings(model="gpt-5-mini", engine="openai")}
        return Settings.load(pools=pools, overflow=overflow)

    able = load("gpt-5", "gpt-5-mini").overflow
    assert [able.has_effort(model) for model in ("own", "gpt-5-mini", "other")] == [True, True, False]
    with pytest.raises(ConfigError, match="answered by gpt-6") as raised:
        load("gpt-5", "gpt-6")
    assert raised.value.param == "overflow.effort_models"


def test_a_pool_of_the_paid_api_needs_a_key(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")

    with pytest.raises(ConfigError, match=r"'chat'.*set OPENAI_API_KEY"):
        load(PAID).check_paid_pools()


def test_a_pool_of_the_paid_api_with_a_key_is_sound(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    monkeypatch.setenv("HEADRACE_MODEL", "small")
    monkeypatch.setenv("OPENAI_API_KEY", "sk")

    load(PAID + '[overflow.models]\nsmall = "gpt-4o-mini"').check_paid_pools()


def test_its_own_names_of_the_paid_api_win_over_the_sdks(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "hr-of-a-client")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
    monkeypatch.setenv("HEADRACE_OPENAI_API_KEY", "sk-own")
    monkeypatch.setenv("HEADRACE_OPENAI_BASE_URL", "https://api.example/v1")

    settings = load("")

    assert settings.openai_api_key is not None
    assert (settings.openai_api_key.get_secret_value(), settings.openai_base_url) == (
        "sk-own",
        "https://api.example/v1",
    )
    settings.check_paid_api("http://127.0.0.1:8000")


@pytest.mark.parametrize(
    ("name", "own", "expected"),
    [
        ("OPENAI_API_KEY", "sk-own", ("sk-own", None)),
        ("OPENAI_BASE_URL", "https://api.example", (None, "https://api.example")),
    ],
)
def test_one_name_of_its_own_and_one_of_the_sdks_are_never_put_together(
    monkeypatch: pytest.MonkeyPatch, load: Load, name: str, own: str, expected: tuple[str | None, str | None]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "hr-of-a-client")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://headrace:8000/v1")
    monkeypatch.setenv(f"HEADRACE_{name}", own)

    settings = load("")

    key = settings.openai_api_key and settings.openai_api_key.get_secret_value()
    assert (key, settings.openai_base_url) == expected


def test_the_key_of_another_headrace_is_taken_by_its_own_name(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    monkeypatch.setenv("HEADRACE_OPENAI_API_KEY", "hr-of-another")
    monkeypatch.setenv("HEADRACE_OPENAI_BASE_URL", "https://other.example/v1")

    load("").check_paid_api("http://127.0.0.1:8000")


def test_a_key_of_headrace_is_refused_as_the_paid_apis(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "hr-secret")

    with pytest.raises(ConfigError, match=r"a key of Headrace.*HEADRACE_OPENAI_API_KEY") as refused:
        load("").check_paid_api()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("base", ["http://127.0.0.1:8000/v1", "http://localhost:8000/v1/", "http://[::1]:8000"])
def test_its_own_address_is_refused_as_the_paid_apis(monkeypatch: pytest.MonkeyPatch, load: Load, base: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", base)

    with pytest.raises(ConfigError, match="Headrace's own"):
        load("").check_paid_api("http://127.0.0.1:8000")
    with pytest.raises(ConfigError, match="Headrace's own"):
        load('url = "http://127.0.0.1:8000"').check_paid_api()
    load("").check_paid_api("http://127.0.0.1:8001")
    load("").check_paid_api()  # By default vLLM's own server listens there.


@pytest.mark.parametrize(
    "option",
    [
        *('adapters = { dtype = "x" }', 'engine_options = { dtype = "x" }', 'reasoning_parser = "qwen3"'),
        *('tool_parser = "hermes"', 'tool_strict_level = "parameter"', 'chat_template = "/etc/t.jinja"'),
    ],
)
def test_a_pool_of_the_paid_api_has_none_of_vllms_options(option: str, load: Load) -> None:
    text = f'[pools.chat]\nengine = "openai"\nmodel = "gpt-4o-mini"\n{option}'

    with pytest.raises(ConfigError, match=rf"pools\.chat.*'{option.split()[0]}' is for a pool with workers"):
        load(text)


KEY = "whsec_" + "a" * 32


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (f'webhook_url = "a.example"\nwebhook_secret = "{KEY}"', "budgets.webhook_url"),
        ('webhook_secret = "secret"', "budgets.webhook_secret"),
        ('webhook_secret_old = "secret"', "budgets.webhook_secret_old"),
        ('webhook_secret = "whsec_YWJj"', "budgets.webhook_secret"),
    ],
    ids=["no address", "no key", "no old key", "short key"],
)
def test_an_operators_webhook_has_an_address_and_a_secret_that_can_sign(text: str, named: str, load: Load) -> None:
    with pytest.raises(ConfigError, match=named) as raised:
        load(f"[budgets]\n{text}")

    assert "YWJj" not in str(raised.value)


def test_an_operators_webhook_comes_from_the_file_and_its_secret_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    monkeypatch.setenv("HEADRACE_BUDGETS__WEBHOOK_SECRET", KEY)

    settings = load('[budgets]\nwebhook_url = "https://a.example/hook"')

    assert settings.budgets.webhook_secret is not None
    assert settings.budgets.webhook_secret.get_secret_value() == KEY
    assert KEY not in repr(settings)


def test_a_pool_that_the_environment_cannot_change_so_is_named(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    text = '[pools.chat]\nmodel = "m"\nadapters = { sql = "folder" }'
    monkeypatch.setenv("HEADRACE_ENGINE", "openai")

    with pytest.raises(ConfigError, match=r"'chat'.*HEADRACE_.*ENGINE.*'adapters'") as raised:
        load(text)

    assert raised.value.param == "pools.chat"


def test_the_paid_api_is_at_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:9000/v1")

    with pytest.raises(ConfigError, match="OPENAI_BASE_URL"):
        Settings.load()


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("HEADRACE_BUDGET__DAY_USD", "HEADRACE_BUDGETS__DAY_USD"),
        ("HEADRACE_BUDGETS_DAY_USD", "HEADRACE_BUDGETS__DAY_USD"),
        ("HEADRACE_LEASES_S", "HEADRACE_LEASE_S"),
        ("HEADRACE_POOLS__CHAT__MAX_RUNING", "HEADRACE_POOLS__CHAT__MAX_RUNNING"),
        ("HEADRACE_LANES__HIGH__DEPHT_CAP", "HEADRACE_LANES__HIGH__DEPTH_CAP"),
        ("HEADRACE_LEASE_S__MS", "HEADRACE_LEASE_S"),
    ],
)
def test_unknown_variable_is_refused_with_the_nearest_name(
    variable: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "5")

    with pytest.raises(ConfigError) as refused:
        Settings.load()

    assert str(refused.value) == f"The variable {variable} names no setting. Did you mean '{meant}'?"
    assert refused.value.param == variable


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HEADRACE_HOST", "0.0.0.0"),
        ("HEADRACE_POOLS__CHAT__ENGINE_OPTIONS__ANY__THING", "1"),
        ("HEADRACE_POOLS__CHAT__PRICE__VERSION", "v"),
        ("HEADRACE_MISSPELT", ""),
        ("HEADRACE_WEB_SERVICE_HOST", "10.0.0.1"),
        ("HEADRACE_WEB_PORT", "tcp://10.0.0.1:80"),
        ("HEADRACE_WEB_PORT_80_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_variables_that_mean_something_elsewhere_and_empty_ones_pass(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)

    assert Settings.load().pool


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("overflow", "as the queues of the paid API are"),
        *((name, "begins with a letter or a digit") for name in ("", "my pool", "a/b", "x{y}", "a$b", "-a", "a" * 64)),
    ],
)
def test_a_name_that_no_queue_can_have_is_no_pool_s(name: str, why: str, load: Load) -> None:
    with pytest.raises(ConfigError, match=f"No pool can be named '{re.escape(name)}'.*{why}"):
        load(f'[pools.chat]\n[pools."{name}"]\nmodel = "m"')


@pytest.mark.parametrize("name", ["Qwen2.5-0_5B", "llama3:8b", "tschüss"])
def test_a_pool_can_be_named_after_its_model(name: str, load: Load) -> None:
    assert load(f'[pools."{name}"]\nmodel = "m"').own_pools == (name,)


def test_a_host_has_the_machine_s_name_unless_it_is_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().host_id == socket.gethostname()

    monkeypatch.setenv("HEADRACE_HOST_ID", "i-0abc")
    assert Settings.load().host_id == "i-0abc"


def test_an_embedding_model_knows_its_own_limit() -> None:
    assert PoolSettings(serves="embeddings").max_model_tokens is None
    assert PoolSettings(serves="embeddings", max_model_tokens=128).max_model_tokens == 128
    assert PoolSettings().max_model_tokens == 2048


@pytest.mark.parametrize("option", ['adapters = { a = "x" }', 'reasoning_parser = "qwen3"', 'engine = "openai"'])
def test_a_pool_of_embeddings_has_nothing_that_makes_text(option: str, load: Load) -> None:
    text = f'[pools.embed]\nserves = "embeddings"\nmodel = "m"\n{option}'
    with pytest.raises(ConfigError, match="embeddings"):
        load(text)


@pytest.mark.parametrize(
    ("variables", "kept"),
    [
        ({}, ("smollm2", "hermes")),
        ({"HEADRACE_MODEL": DEFAULT_MODEL, "HEADRACE_MODEL_DIR": "/models/smollm2"}, ("smollm2", "hermes")),
        ({"HEADRACE_MODEL": "org/other"}, (None, None)),
        ({"HEADRACE_ENGINE": "openai", "OPENAI_API_KEY": "sk"}, (None, None)),
        ({"HEADRACE_POOLS__CHAT__ENGINE": "openai", "OPENAI_API_KEY": "sk"}, (None, None)),
        ({"HEADRACE_POOLS__CHAT__SERVES": "embeddings"}, (None, None)),
    ],
)
def test_a_shipped_template_is_for_its_model_alone(
    variables: dict[str, str], kept: tuple[str | None, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the file that comes with Headrace."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HEADRACE_CONFIG", raising=False)
    pool = Settings.load().served_pool
    assert (pool.chat_template, pool.tool_parser) == kept


def test_a_template_of_the_operator_s_stays_for_another_model(monkeypatch: pytest.MonkeyPatch, load: Load) -> None:
    text = '[pools.chat]\nmodel = "a/b"\nchat_template = "/etc/t.jinja"\ntool_parser = "hermes"'
    monkeypatch.setenv("HEADRACE_MODEL", "c/d")
    pool = load(text).served_pool
    assert (pool.model, pool.chat_template, pool.tool_parser) == ("c/d", "/etc/t.jinja", "hermes")


@pytest.mark.parametrize("option", ['tool_parser = "hermes"', 'chat_template = "/etc/t.jinja"'])
def test_a_pool_of_embeddings_has_no_tools(option: str, load: Load) -> None:
    with pytest.raises(ConfigError, match="no 'tool_parser', no 'chat_template'"):
        load(f'[pools.chat]\nserves = "embeddings"\n{option}')


@pytest.mark.parametrize(("given", "days"), [("", 30), ("7", 7), ("forever", None)])
def test_texts_are_kept_for_ever_only_where_it_is_said(
    given: str, days: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_KEEP_TEXTS_DAYS", given)
    assert Settings.load().keep_texts_days == days


def test_a_wrong_time_to_keep_texts_is_named_with_what_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KEEP_TEXTS_DAYS", "for ever")
    with pytest.raises(
        ConfigError, match=r"keep_texts_days \(HEADRACE_KEEP_TEXTS_DAYS\): .*'forever'.* Got 'for ever'"
    ):
        Settings.load()


def test_texts_that_are_kept_for_ever_exclude_detached_months(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KEEP_JOBS_MONTHS", "3")
    assert (Settings.load().keep_texts_days, Settings.load().keep_jobs_months) == (30, 3)
    monkeypatch.setenv("HEADRACE_KEEP_TEXTS_DAYS", "forever")
    with pytest.raises(ConfigError, match=r"keep_texts_days .* keep_jobs_months .* Set keep_texts_days to") as raised:
        Settings.load()
    assert raised.value.param == "keep_jobs_months"


@pytest.mark.parametrize(
    "keys",
    [("a", "a"), ("a", "b", "c", "d", "e", "f"), ("with space",), ("dot.ted",), ("",), ("x" * 65,)],
    ids=["twice", "six", "space", "dot", "empty", "long"],
)
def test_keys_that_split_costs_are_few_words(keys: tuple[str, ...]) -> None:
    assert CostSettings(label_keys=("a", "b_c", "d-1", "e", "f")).label_keys
    with pytest.raises(ValidationError):
        CostSettings(label_keys=keys)
