"""The config as shipped, on campaigns whose truth is known: who is caught, and who is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulation.breaks import Break
from simulation.score import as_text
from streams.config_files import read_config
from tests.acceptance.judged import START_MS, Judged, judge
from tests.recounts import CHARGED
from tests.services import REPOSITORY

EVENTS = 60_000


@pytest.fixture(scope="module", params=[101, 202])
def judged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return judge(tmp_path_factory.mktemp("shipped"), "config", seed=request.param, events=EVENTS)


def test_every_event_has_its_verdict(judged: Judged) -> None:
    outcomes = judged.outcomes
    assert (outcomes.verdicts, outcomes.late, outcomes.duplicates, outcomes.rejected) == (EVENTS, 0, 0, 0)


def test_the_flagged_are_planted_and_most_of_each_kind_are_flagged(judged: Judged) -> None:
    result = judged.score
    assert result.precision >= 0.97, as_text(result)
    assert len(result.kinds) == 6
    for kind in result.kinds:
        assert kind.share >= 0.8, as_text(result)
        assert kind.precision >= 0.93, as_text(result)
    assert result.prevented_cost_minor >= 0.7 * result.planted_cost_minor
    assert result.refused_cost_minor <= 0.01 * result.prevented_cost_minor


def test_crowds_that_only_look_suspicious_are_left_alone(judged: Judged) -> None:
    assert {crowd.name for crowd in judged.score.crowds} > {
        "office",
        "campus",
        "carrier_nat",
        "family_tablet",
    }
    for crowd in judged.score.crowds:
        assert crowd.share <= 0.05, as_text(judged.score)


def test_the_score_is_what_the_tables_say(judged: Judged) -> None:
    rows = judged.ask("""
        SELECT truth_kind, count(*), count(*) FILTER (flagged) FROM (
            SELECT user_id, truth_kind, bool_or(level IN ('review', 'block')) AS flagged
            FROM verdicts JOIN truth USING (event_id) GROUP BY ALL)
        WHERE truth_kind IS NOT NULL GROUP BY 1 ORDER BY 1""")
    assert rows == [(kind.name, kind.users, kind.flagged) for kind in judged.score.kinds]
    flagged = "(SELECT *, level IN ('review', 'block') AS flagged FROM verdicts JOIN truth USING (event_id))"
    charged = [(kind.name, pytest.approx(kind.charged)) for kind in judged.score.kinds]
    assert judged.ask(CHARGED.format(judged=flagged)) == charged
    assert sum(kind.charged for kind in judged.score.kinds) == pytest.approx(judged.score.honest.flagged)
    money = judged.ask("""
        SELECT sum(cost_minor), sum(cost_minor) FILTER (level IN ('review', 'block'))
        FROM verdicts JOIN truth USING (event_id) WHERE label = 1""")
    assert money == [(judged.score.planted_cost_minor, judged.score.prevented_cost_minor)]


def test_every_rule_has_something_to_say_and_blocks_are_combinations(judged: Judged) -> None:
    fired = {reason for (reason,) in judged.ask("SELECT DISTINCT unnest(reasons) FROM verdicts")}
    config, _ = read_config(REPOSITORY / "config")
    assert set(config.rules) <= fired
    [(blocks, fewest)] = judged.ask("SELECT count(*), min(len(reasons)) FROM verdicts WHERE level = 'block'")
    assert blocks > 100
    assert fewest >= 2


def test_the_clean_funnel_is_that_of_the_honest(judged: Judged) -> None:
    rows = judged.ask("""
        SELECT step_name, users_gross, users_clean FROM funnel
        WHERE funnel = 'conversion' AND "window" = 'all' AND dim = 'all' ORDER BY step""")
    honest = dict(
        judged.ask("""
        SELECT event, count(DISTINCT user_id) FROM verdicts JOIN truth USING (event_id) WHERE label = 0 GROUP BY 1""")
    )
    assert [step for step, _, _ in rows] == ["click", "signup", "participate", "redeem"]
    for step, gross, clean in rows[:2]:
        assert clean < gross
        assert clean == pytest.approx(honest[step], rel=0.06)


def test_a_whole_campaign_raises_no_kpi_alert(judged: Judged) -> None:
    assert judged.kpi_alerts == ()


def test_a_broken_step_is_one_alert_and_one_end(tmp_path: Path) -> None:
    hour_ms = 3_600_000
    break_ = Break("ads", "participate", START_MS + 20 * hour_ms, START_MS + 22 * hour_ms)
    opened, resolved = judge(tmp_path, "config", seed=1, events=120_000, break_=break_).kpi_alerts
    assert (opened.name, opened.dim, opened.dim_value) == ("participation_drop", "channel", "ads")
    assert (opened.state, resolved.state, resolved.id) == ("open", "resolved", opened.id)
    assert opened.since_ms == break_.from_ms
    assert opened.ts_ms - break_.from_ms <= 3 * hour_ms // 2  # three windows of half an hour
    assert resolved.ts_ms > break_.to_ms


def test_each_detector_tells_its_story_in_both_languages() -> None:
    config, _ = read_config(REPOSITORY / "config")
    for name, rule in config.rules.items():
        assert rule.reason_zh, name
        assert rule.reason_en, name
