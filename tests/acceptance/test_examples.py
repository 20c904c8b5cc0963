"""The examples: each is a config without a flaw that finds what it is about, and its README runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulation.score import as_text
from streams.config_files import read_config
from tests.acceptance.judged import judge
from tests.services import REPOSITORY

CATCHES = {
    "signup-bonus": ("device_farm", "phone_segment", "proxy_pool", "script"),
    "coupon": ("device_farm", "invitation_ring", "proxy_pool"),
    "lottery": ("device_farm", "gps_spoofing", "proxy_pool", "script"),
}


def test_every_example_is_tested() -> None:
    assert {path.name for path in (REPOSITORY / "examples").iterdir() if path.is_dir()} == set(CATCHES)


@pytest.mark.parametrize("example", CATCHES)
def test_an_example_catches_what_it_is_about(example: str, tmp_path: Path) -> None:
    judged = judge(tmp_path, f"examples/{example}", seed=7, events=40_000)
    assert judged.outcomes.verdicts == 40_000
    assert judged.score.precision >= 0.97, as_text(judged.score)
    recall = {kind.name: kind.share for kind in judged.score.kinds}
    for kind in CATCHES[example]:
        assert recall[kind] >= 0.5, as_text(judged.score)
    config, _ = read_config(REPOSITORY / "examples" / example)
    fired = {reason for (reason,) in judged.ask("SELECT DISTINCT unnest(reasons) FROM verdicts")}
    assert fired == set(config.rules)
    funnels = judged.ask(
        "SELECT DISTINCT funnel FROM funnel WHERE users_gross > users_clean AND users_clean > 0"
    )
    assert {funnel for (funnel,) in funnels} == set(config.funnels)


@pytest.mark.parametrize("example", CATCHES)
def test_a_readme_names_its_own_folder_in_commands_that_exist(example: str) -> None:
    text = (REPOSITORY / "examples" / example / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^woolwatch .*$", text, re.MULTILINE) == [
        "woolwatch simulate --out spring.parquet",
        f"woolwatch replay spring.parquet --config examples/{example} --out out",
    ]
