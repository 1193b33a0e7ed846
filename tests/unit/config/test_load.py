"""What good files mean."""

from __future__ import annotations

import gc
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from beatd import config
from beatd.config import Config
from beatd.exceptions import ConfigError
from beatd.message import json_codec
from beatd.model import Entry, LeaderSettings, Options, Policies, RedisSettings
from beatd.schedules import every, parse

ENTRY = '[beat_schedule.a]\ntask = "t"\nschedule = 30\n'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("beat.toml")


def loaded(text: str, file: Path, **env: str) -> Config:
    file.write_text(text)
    return config.load(file, env=env)


def entry_of(text: str, file: Path, **env: str) -> Entry:
    (entry,) = loaded(text, file, **env).entries
    return entry


def test_an_empty_file_is_all_defaults(file: Path) -> None:
    config = loaded("", file)
    assert config.entries == ()
    assert config.settings.timezone == "UTC"
    assert config.settings.redis == RedisSettings()
    assert config.settings.leader == LeaderSettings()
    assert config.settings.file == str(file.absolute())
    assert config.settings.state_dir == str(file.absolute().parent / ".beatd")
    assert config.files == (str(file.absolute()),)


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + ENTRY.replace("\n", "\r\n").encode())
    (entry,) = config.load(file).entries
    assert (entry.task, entry.source) == ("t", "beat.toml:1")


def test_every_setting(file: Path) -> None:
    settings = loaded(
        """
        timezone = "Europe/Berlin"
        app = "proj.tasks:app"
        state_dir = "../state"
        [redis]
        url = "rediss://h:1/2"
        prefix = "p"
        timeout = 2.5
        [broker]
        url = "amqp://guest@rabbit//"
        default_queue = "q"
        [leader]
        ttl = "9s"
        renew = "2s"
        shards = 4
        [log]
        level = "debug"
        format = "json"
        """,
        file,
    ).settings
    assert (settings.timezone, settings.app) == ("Europe/Berlin", "proj.tasks:app")
    assert settings.state_dir == str(file.absolute().parent.parent / "state")
    assert (settings.redis.url, settings.redis.prefix, settings.redis.timeout_ms) == ("rediss://h:1/2", "p", 2500)
    assert (settings.broker.url, settings.broker.default_queue) == ("amqp://guest@rabbit//", "q")
    assert settings.leader == LeaderSettings(ttl_ms=9000, renew_ms=2000, shards=4)
    assert (settings.log.level, settings.log.format) == ("debug", "json")


def test_a_ttl_alone_brings_its_renewals(file: Path) -> None:
    assert loaded('[leader]\nttl = "6s"\n', file).settings.leader.renew_ms == 2000


def test_systemd_says_where_the_state_is(file: Path) -> None:
    assert loaded("", file, STATE_DIRECTORY="/var/lib/beatd:/x").settings.state_dir == "/var/lib/beatd"


def test_every_field_of_an_entry(file: Path) -> None:
    entry = entry_of(
        """
        [beat_schedule.x]
        task = "tasks.add"
        schedule = "30 7 * * mon"
        timezone = "Asia/Baku"
        dst = "skip"
        args = [1, "a", true, 2.5, [1], { k = 2026-01-01 }]
        kwargs = { format = "pdf" }
        queue = "q"
        exchange = "e"
        routing_key = "r"
        priority = 6
        expires = "2h"
        headers = { tenant = "a" }
        serializer = "json"
        time_limit = 10
        soft_time_limit = "5s"
        ignore_result = true
        shadow = "s"
        countdown = 1.5
        link = "tasks.next"
        link_error = [{ task = "tasks.oops", args = [1], immutable = true }]
        enabled = false
        start = 2026-01-01
        end = "2027-01-01T00:00:00+02:00"
        max_runs = 7
        jitter = "5m"
        blackout = "22:00-06:00"
        catch_up = "all"
        catch_up_window = "1h"
        catch_up_max = 5
        overlap = "queue_one"
        max_runtime = "1h"
        max_queue_depth = 3
        """,
        file,
    )
    more: dict[str, object] = {"args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
    follower: dict[str, object] = {"task": "tasks.next", **more}
    assert entry.args == (1, "a", True, 2.5, [1], {"k": date(2026, 1, 1)})
    assert entry.kwargs == {"format": "pdf"}
    assert entry.schedule == parse("30 7 * * mon", timezone="Asia/Baku", dst="skip")
    assert entry.options == Options(
        queue="q",
        exchange="e",
        routing_key="r",
        priority=6,
        expires=7_200_000,
        headers={"tenant": "a"},
        time_limit=10.0,
        soft_time_limit=5.0,
        ignore_result=True,
        shadow="s",
        countdown_ms=1500,
        link=[follower],
        link_error=[{**follower, "task": "tasks.oops", "args": [1], "immutable": True}],
    )
    assert entry.policies.start == datetime(2025, 12, 31, 20, tzinfo=UTC)
    assert entry.policies.end == datetime(2026, 12, 31, 22, tzinfo=UTC)
    assert entry.policies.blackout is not None
    assert entry.policies.blackout.covers(datetime(2026, 1, 1, 19, tzinfo=UTC))
    rest = {name: getattr(entry.policies, name) for name in ("enabled", "max_runs", "jitter_ms", "catch_up")}
    assert rest == {"enabled": False, "max_runs": 7, "jitter_ms": 300_000, "catch_up": "all"}
    assert (entry.policies.catch_up_window_ms, entry.policies.catch_up_max) == (3_600_000, 5)
    assert (entry.policies.overlap, entry.policies.max_runtime_ms) == ("queue_one", 3_600_000)
    assert entry.policies.max_queue_depth == 3


def test_celerys_options_table_means_the_same(file: Path) -> None:
    ours = entry_of(ENTRY + 'queue = "q"\npriority = 3\nexpires = 10\n', file)
    celerys = entry_of(ENTRY + 'options = { queue = "q", priority = 3, expires = 10 }\n', file)
    assert ours == celerys
    assert ours.options.expires == 10_000


def test_celerys_relative(file: Path) -> None:
    entry = entry_of(ENTRY.replace("30", '"1h"') + "relative = true\n", file)
    assert entry.schedule == every("1h", relative=True)
    assert entry.schedule.next_after(datetime(2026, 1, 1, 9, 20, tzinfo=UTC)) == datetime(2026, 1, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"auto"', "auto"),
        ('"never"', None),
        ("0.5", 500),
        ('"PT1M"', 60_000),
        ("2026-06-01T12:00:00", datetime(2026, 6, 1, 10, tzinfo=UTC)),
        ("2026-06-01T12:00:00Z", datetime(2026, 6, 1, 12, tzinfo=UTC)),
        ('"2026-06-01"', datetime(2026, 5, 31, 22, tzinfo=UTC)),
    ],
)
def test_expires(file: Path, written: str, meant: object) -> None:
    text = 'timezone = "Europe/Berlin"\n[defaults]\nexpires = "1h"\n' + ENTRY
    assert entry_of(text + f"expires = {written}\n", file).options.expires == meant


def test_defaults_stand_in_for_what_an_entry_does_not_say(file: Path) -> None:
    defaults = '[defaults]\ntimezone = "Asia/Baku"\nqueue = "slow"\njitter = "5s"\noverlap = "skip"\n'
    plain = entry_of(defaults + ENTRY, file)
    assert (plain.timezone, plain.options.queue, plain.policies.jitter_ms) == ("Asia/Baku", "slow", 5000)
    own = entry_of(
        defaults + ENTRY + 'timezone = "UTC"\nqueue = "fast"\noptions = { priority = 1 }\njitter = 0\n', file
    )
    assert (own.timezone, own.options.queue, own.options.priority) == ("UTC", "fast", 1)
    assert own.policies == Policies(overlap="skip")


def test_a_naive_default_is_read_in_the_zone_of_each_entry(file: Path) -> None:
    config = loaded(
        "[defaults]\nstart = 2026-06-01\n" + ENTRY + ENTRY.replace(".a]", ".b]") + 'timezone = "Asia/Baku"\n', file
    )
    starts = [entry.policies.start for entry in config.entries]
    assert starts == [datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 5, 31, 20, tzinfo=UTC)]


def test_included_files_have_their_own_zone_and_defaults(file: Path) -> None:
    Path("beat.d").mkdir()
    Path("beat.d/b.toml").write_text(ENTRY.replace(".a]", ".b]"))
    Path("beat.d/c.toml").write_text(
        'timezone = "Asia/Baku"\n[defaults]\nqueue = "c"\n' + ENTRY.replace(".a]", ".c]").replace("30", '"0 9 * * *"')
    )
    Path("beat.d/.c.toml.swp").write_text("not for us")
    config = loaded('include = ["beat.d/*.toml"]\n[defaults]\nqueue = "q"\noverlap = "skip"\n' + ENTRY, file)
    by_name = {entry.name: entry for entry in config.entries}
    assert [(e.name, e.timezone, e.options.queue) for e in config.entries] == [
        ("a", "UTC", "q"),
        ("b", "UTC", "q"),
        ("c", "Asia/Baku", "c"),
    ]
    assert by_name["c"].policies.overlap == "skip"
    assert by_name["c"].source == "beat.d/c.toml:4"
    assert config.files == tuple(str(Path(name).absolute()) for name in ("beat.toml", "beat.d/b.toml", "beat.d/c.toml"))
    assert config.globs == (str(Path("beat.d/*.toml").absolute()),)


def test_a_file_that_two_patterns_match_is_read_once(file: Path) -> None:
    Path("b.toml").write_text(ENTRY)
    assert len(loaded('include = ["b*.d", "b.toml", "[b].toml"]\n', file).files) == 2


def test_includes_work_from_a_folder_with_a_strange_name(tmp_path: Path) -> None:
    folder = tmp_path / "[a]*"
    (folder / "d").mkdir(parents=True)
    (folder / "d" / "x.toml").write_text(ENTRY)
    (folder / "beat.toml").write_text('include = ["d/*.toml"]\n')
    assert len(config.load(folder / "beat.toml").entries) == 1


def test_variables(file: Path) -> None:
    text = """
    app = "${MODULE}:${APP:-app}"
    [redis]
    url = "redis://:${PASSWORD}@h"
    [leader]
    shards = "${SHARDS}"
    [beat_schedule.a]
    task = "$${HOME} $HOME ${EMPTY:-full}"
    schedule = "${EVERY}"
    args = ["${PASSWORD}"]
    kwargs = { "${KEY}" = ["${PASSWORD}"] }
    enabled = "${ON}"
    """
    values = {"MODULE": "m", "PASSWORD": "hunter2", "SHARDS": "3", "EVERY": "5s", "EMPTY": "", "ON": "false"}
    config = loaded(text, file, **values)
    (entry,) = config.entries
    assert config.settings.app == "m:app"
    assert config.settings.redis.url == "redis://:hunter2@h"
    assert config.settings.leader.shards == 3
    assert entry.task == "${HOME} $HOME full"
    assert entry.schedule == every(5)
    assert entry.policies.enabled is False
    assert (entry.args, entry.kwargs) == (("hunter2",), {"${KEY}": ["hunter2"]})
    made = [config.settings.app, config.settings.redis.url, entry.task, entry.args[0], entry.kwargs["${KEY}"][0]]
    assert {type(value) for value in made} == {str}


def test_a_url_may_be_in_a_file_of_its_own(file: Path) -> None:
    Path("secret").write_text("redis://:hunter2@h\n")
    settings = loaded('[redis]\nurl_file = "secret"\n[broker]\nurl_file = "secret"\n', file).settings
    assert settings.redis.url == settings.broker.url == "redis://:hunter2@h"
    assert type(settings.redis.url) is str


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('url_file = "none"', 'redis.url_file: "none" cannot be read: No such file or directory'),
        ('url_file = "."', 'redis.url_file: "." is not a regular file'),
        ('url_file = "bad"', "redis.url_file: not a URL: expected "),
        ('url_file = "long"', 'redis.url_file: "long" has more than 8192 characters; expected one short line'),
        ('url = "redis://h"\nurl_file = "good"', "redis.url_file: url and url_file are both set; expected one of them"),
        ('ulr_file = "good"', 'redis.ulr_file: unknown setting "ulr_file"; did you mean "url_file"?'),
    ],
)
def test_faults_of_secrets_in_files(file: Path, text: str, fault: str) -> None:
    for name, content in {"bad": "hunter2", "long": "hunter2" * 2000, "good": "redis://h"}.items():
        Path(name).write_text(content)
    with pytest.raises(ConfigError) as caught:
        loaded("[redis]\n" + text, file)
    assert fault in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_equal_shapes_are_shared_and_names_decide_about_h(file: Path) -> None:
    text = "".join(
        f'[beat_schedule.e{n}]\ntask = "t{n}"\nargs = [{n}]\nschedule = "{schedule}"\nqueue = "q"\njitter = 1\n'
        for n, schedule in enumerate(["0 3 * * *", "0 3 * * *", "H 3 * * *", "H 3 * * *"])
    )
    a, b, c, d = loaded(text, file).entries
    assert a.schedule is b.schedule
    assert a.options is b.options is c.options
    assert a.policies is b.policies is c.policies
    assert c.schedule != d.schedule


def test_one_true_and_one_point_nothing_are_three_things(file: Path) -> None:
    text = ENTRY + "headers = { a = 1 }\n" + ENTRY.replace(".a]", ".b]") + "headers = { a = true }\n"
    a, b = loaded(text, file).entries
    assert a.options.headers["a"] is not b.options.headers["a"]


def test_times_in_arguments_become_what_everything_understands(file: Path) -> None:
    entry = entry_of(ENTRY + "args = [2026-01-01T00:00:00+02:00, 2026-01-01T00:00:00Z, [2026-01-01T00:00:00Z]]\n", file)
    first, second, (third,) = entry.args
    assert [type(each.tzinfo).__module__ for each in (first, second, third)] == ["datetime"] * 3
    assert first.utcoffset() == timedelta(hours=2)
    assert json_codec.loads(json_codec.dumps(entry.args)) == list(entry.args)


def test_numbers_of_any_length(file: Path) -> None:
    entry = entry_of(ENTRY + f"args = [{10**30}]\nheaders = {{ a = {10**30} }}\n", file)
    assert entry.args == (10**30,)


def test_the_digest_is_of_the_meaning(file: Path) -> None:
    other = ENTRY.replace(".a]", ".b]")
    digest = loaded(ENTRY + other, file).digest
    assert digest == loaded(f"# a comment\n{other}\n\n\n{ENTRY}", file).digest
    assert digest == loaded(ENTRY.replace("30", '"30s"') + other, file).digest
    assert digest == loaded('[log]\nlevel = "debug"\n' + ENTRY + other, file).digest
    changed = [ENTRY, ENTRY + other + "args = [1]", ENTRY + other + "enabled = false", ENTRY + other + 'queue = "q"']
    assert len({digest, *(loaded(text, file).digest for text in changed)}) == 5


def test_a_file_is_found_by_name_by_variable_and_by_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.find("x.toml", env={"BEATD_CONFIG": "y.toml"}) == Path("x.toml")
    assert config.find(None, env={"BEATD_CONFIG": "y.toml"}) == Path("y.toml")
    with pytest.raises(ConfigError, match=r"tried \$BEATD_CONFIG \(not set\), \./beat\.toml, /etc/beatd/beat\.toml"):
        config.find(None, env={})
    Path("beat.toml").touch()
    assert config.find(None, env={}) == Path("beat.toml")


def _many(count: int) -> str:
    return "\n".join(
        f"[beat_schedule.e-{n}]  # {n}\ntask = 't'\nschedule = \"{n % 60} * * * *\"\nargs = [{n}]\n"
        for n in range(count)
    )


def test_large_files_are_read_in_pieces_to_the_same_values(file: Path) -> None:
    head, text = 'timezone = "Asia/Baku"\n\n', _many(1201) + "\n[beat_schedule.e-1200.kwargs]\na = 1\n"
    pieces = loaded(head + text, file)
    whole = loaded(head + text + "# '''", file)
    assert pieces == whole
    assert len(pieces.entries) == 1201
    assert pieces.entries[1200].kwargs == {"a": 1}
    lines = (head + text).splitlines()
    for entry in pieces.entries:
        line = int(entry.source.rpartition(":")[2])
        assert lines[line - 1].startswith(f"[beat_schedule.{entry.name}]")


@pytest.mark.parametrize(
    ("tail", "fault"),
    [
        (
            "[beat_schedule.e-3]\n",
            r"beat\.toml:7500:1: .*\.e-3: .*\"e-3\" is already defined at .*beat\.toml:16",
        ),
        (
            "[beat_schedule.e-1499.args]\n",
            r"beat\.toml:7500:\d+: not TOML: .*e-1499\.args is already defined on line",
        ),
        ("args = []\n", r"beat\.toml:7500:1: not TOML: .*args is already defined on line 7499"),
        ("app = \n", r"beat\.toml:7500:\d+: not TOML: the value is missing"),
        ("[defaults]\nexpires = 'x'\n", r"beat\.toml:7501:1: defaults\.expires"),
    ],
)
def test_faults_at_the_end_of_a_large_file_have_their_line(file: Path, tail: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        loaded(_many(1500) + tail, file)


def test_ten_thousand_entries(file: Path) -> None:
    config = loaded(_many(10_000), file)
    assert len(config.entries) == 10_000
    assert len({id(entry.schedule) for entry in config.entries}) == 60
    assert gc.isenabled()


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_secrets_in_files_may_begin_with_a_byte_order_mark(file: Path, end: str) -> None:
    Path("url").write_bytes(f"\ufeffredis://h{end}".encode())
    Path("password").write_bytes(f"\ufeffhunter2{end}".encode())
    text = '[redis]\nurl_file = "url"\npassword_file = "password"\n'
    assert loaded(text, file).settings.redis.url == "redis://:hunter2@h"


@pytest.mark.parametrize("form", ["{}\n", "options = {{ {} }}\n"])
@pytest.mark.parametrize(
    ("defaults", "own", "address"),
    [
        ('exchange = "e"\nrouting_key = "k"', 'queue = "own"', ("own", None, None)),
        ('queue = "q"', 'exchange = "own"', (None, "own", None)),
        ('queue = "q"', 'exchange = "own", routing_key = "key"', (None, "own", "key")),
        ('exchange = "e"', 'routing_key = "key"', (None, "e", "key")),
        ('exchange = "e"\nrouting_key = "k"', 'exchange = "own"', (None, "own", "k")),
        ('queue = "q"', "priority = 1", ("q", None, None)),
        ('exchange = "e"\nqueue = "q"', 'exchange = "own", queue = "both"', ("both", "own", None)),
    ],
)
def test_an_address_of_an_entry_replaces_that_of_the_defaults(
    file: Path, form: str, defaults: str, own: str, address: tuple[str | None, ...]
) -> None:
    own = form.format(own if "options" in form else own.replace(", ", "\n"))
    options = entry_of(f"[defaults]\n{defaults}\n{ENTRY}{own}", file).options
    assert (options.queue, options.exchange, options.routing_key) == address


def test_blackouts_follow_their_variables(file: Path) -> None:
    """Blackouts that are written alike are one object while somebody has it."""
    text = ENTRY + 'blackout = ["${NIGHT}", { cron = "${CRON}", duration = "1h" }]\n'
    first = entry_of(text, file, NIGHT="22:00-06:00", CRON="0 12 * * *")
    second = entry_of(text, file, NIGHT="23:00-06:00", CRON="0 13 * * *")
    assert first.policies.blackout is not None
    assert second.policies.blackout is not None
    assert first.policies.blackout.notation == ["22:00-06:00", {"cron": "0 12 * * *", "duration": "1h"}]
    assert second.policies.blackout.notation == ["23:00-06:00", {"cron": "0 13 * * *", "duration": "1h"}]


def test_the_digest_follows_the_variables_of_blackouts(file: Path) -> None:
    text = ENTRY + 'blackout = ["${DAY}"]\n'
    first, second = (loaded(text, file, DAY=day) for day in ("2026-12-24", "2026-12-25"))
    assert first.digest != second.digest
    assert first.digest == loaded(ENTRY + 'blackout = ["2026-12-24"]\n', file).digest
    assert first.entries[0].policies.blackout is not None
    [notation] = first.entries[0].policies.blackout.notation  # type: ignore[attr-defined]
    assert type(notation) is str


@pytest.mark.parametrize(
    ("table", "number"),
    [
        ('{ solar = "sunset", lat = NUMBER, lon = 49.9 }', "40.4"),
        ('{ solar = "sunset", lat = 40.4, lon = NUMBER }', "-49.9"),
        ('[{ solar = "sunset", lat = NUMBER, lon = 0 }, 30]', "7"),
        ("{ every = NUMBER }", "90"),
        *((f"{{ {key} = NUMBER }}", "5") for key in ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")),
    ],
)
def test_every_number_of_a_schedule_may_come_from_a_variable(file: Path, table: str, number: str) -> None:
    def schedule(written: str) -> object:
        text = ENTRY.replace("schedule = 30", "schedule = " + table.replace("NUMBER", written))
        return entry_of(text, file, N=number).schedule

    assert schedule('"${N}"') == schedule(number)
