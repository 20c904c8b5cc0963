from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from console.figures import Count, Notice
from console.live_view import SHOWN_ALERTS, Moment, alert_line, bar, draw, line, save_picture

ALERT = Notice("block", "open", 1_772_380_800_000, "设备农场", "a device farm")
MOMENT = Moment(
    campaign="spring",
    timezone="Asia/Shanghai",
    event_time_ms=1_772_380_800_000,
    published=1_000,
    total=2_000,
    events_per_s=100.0,
    elapsed_s=10.0,
    funnel=[Count("click", 900, 100), Count("redeem", 90, 45)],
    daily_users=[Count("2026-03-02", 950, 110)],
    alerts=[ALERT],
)


def _drawn(moment: Moment) -> str:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(draw(moment))
    return console.export_text()


def test_a_bar_is_clean_and_then_suspect() -> None:
    assert bar(Count("click", 100, 25), 100, 40).plain == "█" * 30 + "░" * 10
    assert bar(Count("redeem", 50, 0), 100, 40).plain == "█" * 20
    assert bar(Count("redeem", 50, 50), 100, 40).plain == "░" * 20


def test_one_suspect_in_a_thousand_is_seen_and_nobody_is_not() -> None:
    assert bar(Count("click", 1_000, 1), 1_000, 40).plain.endswith("█░")
    assert bar(Count("click", 0, 0), 0, 40).plain == ""


def test_the_view_fits_eighty_columns_and_shows_numbers_and_reasons() -> None:
    text = _drawn(MOMENT)
    assert "…" not in text
    for shown in (
        "1,000 of 2,000 events, 100/s",
        "900",
        "800",
        "02 Mar 00:00",
        "block",
        "设备农场",
        "a device farm",
    ):
        assert shown in text


def test_long_titles_are_cut_and_neither_time_nor_severity_is() -> None:
    long = Notice("review", "open", ALERT.since_ms, "同一设备" * 20, "several accounts " * 10)
    text = _drawn(replace(MOMENT, alerts=[long] * 5))
    assert text.count("02 Mar 00:00  review ") == SHOWN_ALERTS
    assert text.count("同一设备") > text.count("…") == 2 * SHOWN_ALERTS
    assert len(text.splitlines()) <= 24


def test_only_the_newest_alerts_are_drawn_and_the_view_keeps_its_height() -> None:
    many = [Notice("review", "open", ALERT.since_ms, "", f"alert {number}") for number in range(9)]
    text = _drawn(replace(MOMENT, alerts=many))
    assert "alert 8" in text
    assert f"alert {8 - SHOWN_ALERTS}" not in text
    assert len(text.splitlines()) == len(_drawn(MOMENT).splitlines())


def test_without_a_terminal_there_are_plain_lines() -> None:
    assert line(MOMENT).endswith("campaign time 02 Mar 00:00  redeem: 90 people, 45 clean")
    assert alert_line(ALERT, MOMENT) == "alert (block, open) of 02 Mar 00:00: 设备农场  a device farm"


def test_the_picture_is_an_svg(tmp_path: Path) -> None:
    save_picture(MOMENT, tmp_path / "view.svg")
    assert (tmp_path / "view.svg").read_text().startswith("<svg")
