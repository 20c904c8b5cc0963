"""The language of KPI metrics, and its errors as ``woolwatch check`` shows them."""

from __future__ import annotations

import pytest

from schemas.config import parse_config
from schemas.errors import ConfigError
from schemas.kpi_metric import KpiMetric, parse_kpi_metric

FUNNELS = "funnels: {purchase: {steps: [view, cart, pay, view]}, signup: {steps: [see, join]}}\n"


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("funnel.purchase.rate(2, 3)", KpiMetric(kind="rate", events=("cart", "pay"))),
        (
            " funnel.purchase.rate( 1,2 ).suspect ",
            KpiMetric(kind="rate", events=("view", "cart"), part="suspect"),
        ),
        ("funnel.signup.users(2).clean", KpiMetric(kind="users", events=("join",), part="clean")),
        ("users", KpiMetric(kind="users")),
        ("users.gross", KpiMetric(kind="users")),
        ("events.click.count", KpiMetric(kind="count", events=("click",))),
        ("events.看广告.users", KpiMetric(kind="users", events=("看广告",))),
        ("events.a.b.count.count.clean", KpiMetric(kind="count", events=("a.b.count",), part="clean")),
        ("events.pay.cost_minor", KpiMetric(kind="sum", events=("pay",), field="cost_minor")),
        ("events.view.dwell_p50", KpiMetric(kind="dwell", events=("view",), percent=50)),
    ],
)
def test_metrics_are_understood(text: str, metric: KpiMetric) -> None:
    config, _ = parse_config({"a.yaml": FUNNELS.encode()})
    assert parse_kpi_metric(text, config.funnels) == metric


@pytest.mark.parametrize(
    ("metric", "found", "expected"),
    [
        ("funnel.purchas.rate(1, 2)", "funnel.purchas", "did you mean funnel.purchase?"),
        ("funnel", '"funnel"', "a metric, such as"),
        ("funnel.purchase", "nothing", "one of rate(i, j), users(i) behind funnel.purchase"),
        ("funnel.purchase.rate(2, 5)", "step 5", "a step from 1 to 4, as purchase has"),
        ("funnel.purchase.rate(0, 1)", "step 0", "a step from 1 to 4"),
        ("funnel.purchase.rate(3, 2)", "steps 3 (pay) and 2 (cart)", "the earlier one first"),
        ("funnel.purchase.rate(1, 4)", "steps 1 (view) and 4 (view)", "different events"),
        ("funnel.purchase.rate(2)", '"rate(2)"', "rate(i, j)"),
        ("funnel.purchase.users(1, 2)", '"users(1, 2)"', "users(i)"),
        ("funnel.purchase.rates(1, 2)", '"rates(1, 2)"', "rate(i, j)"),
        ("funnel.purchase.rate(1, 2).honest", "funnel.purchase.rate", "a metric, such as"),
        ("events.click.cuont", '"cuont"', "did you mean count?"),
        ("events.click", '"events.click"', "a metric, such as"),
        ("user", '"user"', "a metric, such as"),
        ("events." + 65 * "x" + ".count", "xxx", "1 to 64 characters"),
        ("__import__('os')", "__import__", "a metric, such as"),
    ],
)
def test_errors_say_where_what_and_what_would_do(metric: str, found: str, expected: str) -> None:
    text = f'{FUNNELS}kpi_alerts: {{k: {{metric: "{metric}", below: 1}}}}'
    with pytest.raises(ConfigError) as caught:
        parse_config({"metrics.yaml": text.encode()})
    (problem,) = caught.value.problems
    assert (problem.file, problem.path) == ("metrics.yaml", "$.kpi_alerts.k.metric")
    assert found in problem.found
    assert expected in problem.expected


def test_a_broken_funnel_is_reported_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(
            {"a.yaml": b'funnels: {f: {steps: []}}\nkpi_alerts: {k: {metric: "funnel.f.users(1)", above: 1}}'}
        )
    assert [problem.path for problem in caught.value.problems] == ["$.funnels.f.steps"]


def test_the_events_of_a_metric_are_known_names() -> None:
    config, notices = parse_config({"a.yaml": b"kpi_alerts: {k: {metric: events.look.count, above: 5}}"})
    assert "look" in config.known_event_names
    assert notices == []
