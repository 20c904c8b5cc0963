"""A config that is wrong: every error with its file, its path, what was found and what was expected."""

from __future__ import annotations

import pytest

from schemas.config import parse_config
from schemas.errors import ConfigError, ConfigProblem

FEATURES = "features: {users: {entity: device_id, distinct: user_id}}\n"


def problems(text: str, **more: str) -> tuple[ConfigProblem, ...]:
    documents = {"a.yaml": text.encode(), **{f"{name}.yaml": other.encode() for name, other in more.items()}}
    with pytest.raises(ConfigError) as refused:
        parse_config(documents)
    return refused.value.problems


def only(text: str) -> ConfigProblem:
    (problem,) = problems(text)
    assert problem.file == "a.yaml"
    return problem


@pytest.mark.parametrize(
    ("text", "path", "found", "expected"),
    [
        # names of blocks and keys
        ("rulez: {}", "$.rulez", '"rulez"', "did you mean rules?"),
        (
            "rules: {r: {when: dwell_ms < 5, wieght: 1}}",
            "$.rules.r.wieght",
            '"wieght"',
            "did you mean weight?",
        ),
        ("rules: {r: {weight: 1}}", "$.rules.r.when", "nothing", "a condition"),
        ("rules: {r: }", "$.rules.r", "nothing", "a mapping"),
        ("rules: [a]", "$.rules", "a list of 1", "a mapping"),
        ("[]", "$", "a list of 0", "a mapping of blocks"),
        # values
        ("rules: {r: {when: dwell_ms < 5, weight: 7}}", "$.rules.r.weight", "7", "a number from 0 to 1"),
        ("rules: {r: {when: dwell_ms < 5, weight: .nan}}", "$.rules.r.weight", "nan", "a number from 0 to 1"),
        (
            "rules: {r: {when: dwell_ms < 5, weight: true}}",
            "$.rules.r.weight",
            "true",
            "a number from 0 to 1",
        ),
        ("rules: {r: {when: dwell_ms < 5, weight: '1'}}", "$.rules.r.weight", '"1"', "a number from 0 to 1"),
        ("rules: {r: {when: 5}}", "$.rules.r.when", "5", "a condition"),
        (
            "rules: {r: {when: dwell_ms < 5, applies_to: redeem}}",
            "$.rules.r.applies_to",
            '"redeem"',
            "a list of event",
        ),
        (
            "rules: {r: {when: dwell_ms < 5, applies_to: [1]}}",
            "$.rules.r.applies_to[0]",
            "1",
            "a list of event",
        ),
        (
            "rules: {r: {when: dwell_ms < 5, applies_to: []}}",
            "$.rules.r.applies_to",
            "a list of 0",
            "a list of event",
        ),
        (
            "models: {m: {kind: half_space_trees, trees: 9, height: 15, features: [dwell_ms]}}",
            "$.models.m",
            "9 trees of height 15",
            "at most 8 trees of that height",
        ),
        ("levels: {observe: 0.7}", "$.levels", "observe 0.7, review 0.6", "ascending"),
        ("levels: {observe: 0.6}", "$.levels", "observe 0.6, review 0.6", "ascending"),
        ("levels: {block: 85}", "$.levels.block", "85", "at most 1"),
        ("lateness: 1", "$.lateness", "1", "a duration"),
        ("lateness: soon", "$.lateness", '"soon"', "a duration"),
        ("restate: 0d", "$.restate", '"0d"', "a duration"),
        ("memory: {max_keys: 0}", "$.memory.max_keys", "0", "a whole number"),
        ("memory: {max_keys: 1.5}", "$.memory.max_keys", "1.5", "a whole number"),
        # features
        (
            "features: {f: {entity: devise_id, distinct: user_id}}",
            "$.features.f.entity",
            "devise_id",
            "did you mean device_id?",
        ),
        (
            "features: {f: {entity: ip, distinct: usr_id}}",
            "$.features.f.distinct",
            "usr_id",
            "did you mean user_id?",
        ),
        ("features: {f: {entity: attrs., count: x}}", "$.features.f.entity", "attrs.", "one of"),
        (
            "features: {f: {entity: ip}}",
            "$.features.f",
            "none of them",
            "exactly one of distinct, count, since, field",
        ),
        (
            "features: {f: {entity: ip, count: x, since: y}}",
            "$.features.f",
            "count and since",
            "exactly one of",
        ),
        ("features: {f: {count: x}}", "$.features.f.entity", "nothing", "an entity"),
        (
            "features: {f: {entity: ip, since: x, window: 1h}}",
            "$.features.f.window",
            "window beside since",
            "no window",
        ),
        (
            "features: {f: {entity: ip, count: x, exclude: self}}",
            "$.features.f.exclude",
            "exclude beside count",
            "no exc",
        ),
        (
            "features: {f: {entity: ip, field: lat}}",
            "$.features.f.entity",
            "entity beside field",
            "no entity",
        ),
        ("features: {f: {entity: ip, distinct: page, exclude: me}}", "$.features.f.exclude", '"me"', "self"),
        ("features: {f: {entity: ip, count: x, window: 24}}", "$.features.f.window", "24", "a duration"),
        ("features: {f: {field: ts}}", "$.features.f.field", '"ts"', "one of dwell_ms"),
        ("features: {dwell_ms: {field: lat}}", "$.features.dwell_ms", "the name dwell_ms", "no field"),
        ("features: {and: {field: lat}}", "$.features.and", "the name and", "no field and no word"),
        ("features: {'a b': {field: lat}}", "$.features", '"a b"', "letters, digits"),
        (
            "features: {Users: {field: lat}, users: {field: lon}}",
            "$.features.users",
            "Users and users",
            "more than case",
        ),
        # names across blocks
        (FEATURES + "rules: {r: {when: user > 1}}", "$.rules.r.when", '"user"', "did you mean users?"),
        (
            "models: {m: {kind: half_space_trees, features: [usr]}}",
            "$.models.m.features[0]",
            '"usr"',
            "one of",
        ),
        (
            "models: {m: {kind: half_space_trees, features: [lat, lat]}}",
            "$.models.m.features[1]",
            "again",
            "once",
        ),
        (
            "models: {m: {kind: half_space_trees, features: []}}",
            "$.models.m.features",
            "a list of 0",
            "a list of feat",
        ),
        (
            "models: {m: {kind: half_space_tree, features: [lat]}}",
            "$.models.m.kind",
            "half_space_tree",
            "did you mean",
        ),
        ("models: {m: {features: [lat]}}", "$.models.m.kind", "nothing", "one of half_space_trees, river"),
        ("models: {m: {kind: river, features: [lat]}}", "$.models.m.class", "nothing", "a River class"),
        (
            "models: {m: {kind: river, class: os.system, features: [lat]}}",
            "$.models.m.class",
            "os.system",
            "a River",
        ),
        (
            "models: {m: {kind: river, class: linear_model.NoSuch, features: [lat]}}",
            "$.models.m.class",
            "which River does not have",
            "a classifier of River",
        ),
        (
            "models: {m: {kind: river, class: linear_model.LinearRegression, features: [lat]}}",
            "$.models.m.class",
            "which is no binary classifier",
            "a classifier of River",
        ),
        (
            "models: {m: {kind: river, class: ensemble.AdaBoostClassifier, features: [lat]}}",
            "$.models.m.class",
            "which can not be made without parameters",
            "a classifier of River",
        ),
        (
            "models: {m: {kind: river, class: naive_bayes.GaussianNB, features: [lat], learns: clean}}",
            "$.models.m.learns",
            "clean",
            "half_space_trees",
        ),
        (
            "models: {m: {kind: half_space_trees, features: [lat], trees: 0}}",
            "$.models.m.trees",
            "0",
            "1 to 256",
        ),
        (
            "rules: {x: {when: dwell_ms < 5}}\nlists: {x: {kind: grey, entity: ip, file: x.csv}}",
            "$.lists.x",
            "stands in rules",
            "reason codes",
        ),
        # lists
        (
            "lists: {l: {kind: red, entity: ip, file: x.csv}}",
            "$.lists.l.kind",
            '"red"',
            "white, black or grey",
        ),
        (
            "lists: {l: {kind: grey, entity: ip, file: ../x.csv}}",
            "$.lists.l.file",
            "../x.csv",
            "inside the config",
        ),
        (
            "lists: {l: {kind: grey, entity: ip, file: /etc/x.csv}}",
            "$.lists.l.file",
            "/etc/x.csv",
            "inside the config",
        ),
        ("lists: {l: {kind: grey, entity: ipp, file: x.csv}}", "$.lists.l.entity", "ipp", "did you mean ip?"),
        # metrics
        ("funnels: {f: {steps: [a], by: [chanel]}}", "$.funnels.f.by[0]", "chanel", "did you mean channel?"),
        ("funnels: {f: {steps: [a], by: [user_id]}}", "$.funnels.f.by[0]", "names persons", "one of"),
        ("funnels: {f: {steps: [a], by: [page, page]}}", "$.funnels.f.by[1]", "again", "once"),
        ("funnels: {f: {steps: []}}", "$.funnels.f.steps", "a list of 0", "a list of 1 to 32"),
        ("funnels: {f: {steps: [a, '']}}", "$.funnels.f.steps[1]", '""', "event names"),
        (
            "funnels: {f: {steps: [a], windows: [all, 1x]}}",
            "$.funnels.f.windows[1]",
            "1x",
            "all, or a duration",
        ),
        ("funnels: {f: {steps: [a], windows: [24h, 1d]}}", "$.funnels.f.windows[1]", "1d after 24h", "once"),
        ("funnels: {f: {steps: [a], order: loose}}", "$.funnels.f.order", "loose", "strict or ties_allowed"),
        ("dau: {by: [ip]}", "$.dau.by[0]", "names persons", "one of"),
        ("kpi_alerts: {k: {metric: a.b, below: .inf}}", "$.kpi_alerts.k.below", "inf", "a number"),
        (
            "kpi_alerts: {k: {metric: events.click.count}}",
            "$.kpi_alerts.k",
            "no bound",
            "below, above or anomaly",
        ),
        (
            "kpi_alerts: {k: {metric: 'funnel.f.rate(1, 2)', below: 1}}",
            "$.kpi_alerts.k.metric",
            "funnel.f",
            "nothing",
        ),
        (
            "kpi_alerts: {k: {metric: users, below: 5, above: 4}}",
            "$.kpi_alerts.k",
            "below 5, above 4",
            "below no larger than above",
        ),
        ("kpi_alerts: {k: {metric: users, below: 5, for: 0}}", "$.kpi_alerts.k.for", "0", "1 to 1000"),
        (
            "kpi_alerts: {k: {metric: users, below: 5, minimum: 3}}",
            "$.kpi_alerts.k.minimum",
            "minimum",
            "min_count",
        ),
        (
            "kpi_alerts: {k: {metric: users, below: 5, by: user_id}}",
            "$.kpi_alerts.k.by[0]",
            "names persons",
            "one of",
        ),
        # the rest
        ("events: {strict: {topic: clicks}}", "$.events.strict", "a mapping of 1", "true or false"),
        ("events: {x: {topic: click}}", "$.events.x.topic", '"click"', "clicks or participations"),
        ("fields: {userid: uid}", "$.fields.userid", "userid", "did you mean user_id?"),
        ("fields: {user_id: 5}", "$.fields.user_id", "5", "the name of a field"),
        ("fields: {user_id: id, event_id: id}", "$.fields.event_id", "as for user_id", "a source for each"),
        ("topics: {clicks: a b}", "$.topics.clicks", '"a b"', "a topic's name"),
        ("topics: {clicks: x, labels: x}", "$.topics.labels", "as for clicks", "a topic for each"),
        ("campaigns: {c: {timezone: Asia/Shangai}}", "$.campaigns.c.timezone", "Asia/Shangai", "IANA"),
        ("campaigns: {c: {timezone: ../../etc/passwd}}", "$.campaigns.c.timezone", "passwd", "IANA"),
        # what was left to be filled in
        (
            "rules: {r: {when: dwell_ms < 5, reason_en: <reason>}}",
            "$.rules.r.reason_en",
            "a placeholder",
            "belongs",
        ),
        (
            "rules: {r: {when: dwell_ms < 5, reason_en: TODO write}}",
            "$.rules.r.reason_en",
            "a placeholder",
            "belongs",
        ),
        ("funnels: {f: {steps: [CHANGEME, b]}}", "$.funnels.f.steps[0]", "a placeholder", "belongs"),
        ("topics: {clicks: '${CLICKS}'}", "$.topics.clicks", "a placeholder", "belongs"),
    ],
)
def test_each_error_says_where_what_and_what_instead(text: str, path: str, found: str, expected: str) -> None:
    problem = next(problem for problem in problems(text) if problem.path == path)
    assert problem.file == "a.yaml"
    assert found in problem.found
    assert expected in problem.expected


@pytest.mark.parametrize(
    "when",
    [
        "users < 0",
        "users < 1 and users > 2",
        "1 > 2",
        "dwell_ms > 5 and (dwell_ms < 2 or dwell_ms == 5)",
        "channel == 'a' and channel == 'b'",
        "lat > 91",
        "users / 0 > 1",
        "not (users >= 0)",
    ],
)
def test_a_rule_that_never_holds_is_refused(when: str) -> None:
    problem = only(FEATURES + f'rules: {{r: {{when: "{when}"}}}}')
    assert problem.path == "$.rules.r.when"
    assert "never true" in problem.found


@pytest.mark.parametrize("when", ["1 < 2", "users > 3 or 2 == 2", "not 3 < 2"])
def test_a_rule_that_always_holds_is_refused(when: str) -> None:
    assert "always true" in only(FEATURES + f"rules: {{r: {{when: {when}}}}}").found


@pytest.mark.parametrize(
    "when", ["users >= 0", "dwell_ms >= 5 or dwell_ms < 5", "channel == 'a' or channel != 'a'"]
)
def test_a_rule_that_holds_whenever_something_is_known_is_noticed(when: str) -> None:
    _, notices = parse_config({"a.yaml": (FEATURES + f'rules: {{r: {{when: "{when}"}}}}').encode()})
    assert any(
        notice.path == "$.rules.r.when" and "every event that has" in notice.message for notice in notices
    )


def test_all_errors_are_told_at_once_each_with_its_file() -> None:
    told = problems(
        "rules: {r: {when: nobody > 1, weight: 7, extra: 1}, s: {when: dwell_ms <}}\nlevels: {observe: 2}",
        b="features: {f: {entity: ipp, count: 5, window: x}}\nfunnels: {f: {steps: a, within: 1, by: b}}",
        c="junk: 1",
    )
    assert {(problem.file, problem.path) for problem in told} == {
        ("a.yaml", "$.rules.r.weight"),
        ("a.yaml", "$.rules.r.extra"),
        ("a.yaml", "$.rules.s.when"),
        ("a.yaml", "$.levels.observe"),
        ("b.yaml", "$.features.f.count"),
        ("b.yaml", "$.features.f.window"),
        ("b.yaml", "$.funnels.f.steps"),
        ("b.yaml", "$.funnels.f.within"),
        ("b.yaml", "$.funnels.f.by"),
        ("c.yaml", "$.junk"),
    }


def test_what_uses_a_wrong_feature_is_not_wrong_as_well() -> None:
    assert (
        only("features: {f: {entity: ipp, count: x}}\nrules: {r: {when: f > 1}}").path
        == "$.features.f.entity"
    )


def test_a_file_that_cannot_be_read_hides_no_names() -> None:
    told = problems("rules: {r: {when: f > 1, weight: 7}}", b="features: {f: [")
    assert [(problem.file, problem.path) for problem in told] == [
        ("b.yaml", "$"),
        ("a.yaml", "$.rules.r.weight"),
    ]


def test_a_block_in_two_files_is_refused_and_both_are_named() -> None:
    (problem,) = problems("levels: {}", b="levels: {}")
    assert (problem.file, problem.path) == ("b.yaml", "$.levels")
    assert "a.yaml" in problem.found


def test_what_came_in_is_never_repeated_at_length() -> None:
    problem = only(f"rules: {{r: {{when: dwell_ms < 5, weight: {'x' * 5000}}}}}")
    assert len(problem.found) < 100
    assert "\x1b" not in only('"\\eescape": 1').found
