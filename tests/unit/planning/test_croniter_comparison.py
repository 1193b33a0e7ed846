"""Cron strings of which croniter has another reading."""

import pytest

from beatd.planning.croniter_comparison import differences


@pytest.mark.parametrize(
    "text",
    [
        "*/5 * * * *",
        "0 9-17 * * mon-fri",
        "0 0 13 * fri",
        "0 0 L * *",
        "0 0 * * fri#2",
        "0 0 * * L5",
        "0 0 15W * *",
        "5/15 * * * *",
        "@daily",
        "@reboot",
        "nonsense",
        "0 0 29 2 *",
        "0 0 30 2 *",
        "0 0 * * 7",
        "0 0 LW * *",
    ],
)
def test_a_string_that_both_read_alike_or_one_refuses_has_no_difference(text):
    assert list(differences(text)) == []


def test_a_star_with_a_step_restricts_the_days_in_croniter():
    [said] = differences("0 0 */2 * mon")
    assert 'the days "*/2 * mon"' in said
    assert said.endswith("there either the day of the month or the weekday suffices, here both must match")


def test_the_seconds_are_last_in_croniter():
    assert list(differences("*/10 * * * * *")) == [
        'croniter reads the last of six fields as the seconds: "* * * * * */10" there'
    ]
    assert list(differences("*/10 * * * * *", with_seconds=False)) == []
