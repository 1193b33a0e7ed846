"""Zones as objects of zoneinfo, pytz, dateutil and datetime: their IANA name, or an error that says what to write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import dateutil.zoneinfo
import pytest
import pytz
from dateutil import tz

from beatd import App, crontab
from beatd.exceptions import ConfigError, ScheduleError
from beatd.schedules.timezone import name_of, zone
from beatd.sources.celery_schedule import timezone_of, translated

BERLIN = [
    "Europe/Berlin",
    ZoneInfo("Europe/Berlin"),
    pytz.timezone("Europe/Berlin"),
    tz.gettz("Europe/Berlin"),
]
UTCS = ["UTC", ZoneInfo("UTC"), UTC, pytz.utc, tz.tzutc(), tz.UTC, tz.gettz("UTC"), tz.tzoffset(None, 0)]
NAMELESS = [
    tz.tzoffset("CEST", 7200),
    tz.tzstr("EST5EDT"),
    tz.tzrange("EST", -18000),
    pytz.FixedOffset(60),
    timezone(timedelta(hours=1)),
]


@pytest.mark.parametrize("place", BERLIN, ids=repr)
def test_an_object_with_a_name_is_the_zone_of_that_name(place):
    assert name_of(place) == "Europe/Berlin"
    assert zone(place) is zone("Europe/Berlin")
    assert crontab(hour=7, timezone=place) == crontab(hour=7, timezone="Europe/Berlin")
    app = App("x", timezone=place, set_as_current=False)
    assert app.timezone == ZoneInfo("Europe/Berlin")
    assert timezone_of(app) == "Europe/Berlin"
    assert translated({"task": "t", "schedule": 1.0, "timezone": place})["timezone"] == "Europe/Berlin"


@pytest.mark.parametrize("place", UTCS, ids=repr)
def test_utc_has_many_objects(place):
    assert zone(place).is_utc


@pytest.mark.parametrize("place", NAMELESS, ids=repr)
def test_one_without_a_name_is_refused(place):
    for use in (zone, lambda place: crontab(timezone=place), lambda place: App("x", timezone=place).timezone):
        with pytest.raises(ScheduleError, match=r'no IANA name; write zoneinfo\.ZoneInfo\("Europe/Berlin"\)'):
            use(place)
    with pytest.raises(ConfigError, match=r"x: timezone = .* no IANA name"):
        timezone_of(App("x", timezone=place))


@pytest.mark.parametrize("link", ["Asia/Tokyo", ":Asia/Tokyo", "a link"])
def test_the_zone_of_the_host_has_the_name_that_the_host_gives_it(monkeypatch, tmp_path, link):
    if link == "a link":
        target = next(Path(folder, "Asia/Tokyo") for folder in tz.TZPATHS if Path(folder, "Asia/Tokyo").exists())
        (tmp_path / "localtime").symlink_to(target)
        link = str(tmp_path / "localtime")
    monkeypatch.setenv("TZ", link)
    assert name_of(tz.tzlocal()) == "Asia/Tokyo"
    if link.startswith("/"):
        assert name_of(tz.tzfile(link)) == "Asia/Tokyo"


def test_a_file_that_is_no_zone_of_the_database_has_no_name(tmp_path):
    source = next(Path(folder, "Asia/Tokyo") for folder in tz.TZPATHS if Path(folder, "Asia/Tokyo").exists())
    (tmp_path / "mine").write_bytes(source.read_bytes())
    with pytest.raises(ScheduleError, match="no IANA name"):
        name_of(tz.tzfile(str(tmp_path / "mine")))


def test_the_zones_that_dateutil_brings_along_may_have_another_of_their_names():
    place = dateutil.zoneinfo.get_zonefile_instance().get("Europe/Berlin")
    summer = int(datetime(2026, 7, 1, tzinfo=UTC).timestamp())
    assert zone(place).span(summer).offset == 7200


def test_a_crontab_in_a_zone_of_dateutil_runs_at_its_times():
    schedule = crontab(minute=0, hour=7, timezone=tz.gettz("Europe/Berlin"))
    assert schedule.next_after(datetime(2026, 3, 28, 12, tzinfo=UTC)) == datetime(2026, 3, 29, 5, tzinfo=UTC)
