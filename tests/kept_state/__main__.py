"""Keep a state of today's format."""

from __future__ import annotations

from schemas.config import parse_config
from streams.checkpoints import FORMAT
from tests.kept_state import FOLDER, STOPPED_AT, TURN_EVENTS, TURNS, KeptWork
from tests.made_events import made_events

CONFIG = """
features:
  device_other_users: {entity: device_id, distinct: user_id, exclude: self}
  device_other_users_1h: {entity: device_id, distinct: user_id, exclude: self, window: 1h}
  ip24_purchases_1h: {entity: ip_prefix_24, count: purchase, window: 1h}
  since_signup_s: {entity: user_id, since: signup}
rules:
  shared_device: {when: device_other_users_1h >= 2, weight: 0.7}
  quick: {when: dwell_ms < 900 and since_signup_s < 600, weight: 0.6}
models:
  anomaly: {kind: half_space_trees, trees: 2, height: 3, features: [device_other_users, dwell_ms], weight: 0.3}
  labelled: {kind: river, class: linear_model.LogisticRegression, scale: true,
    features: [device_other_users, dwell_ms], learns: labels, weight: 0.6}
funnels:
  purchase: {steps: [product_view, add_to_cart, purchase], within: 24h, by: [channel], windows: [all, 1d]}
dau: {by: [channel]}
kpi_alerts:
  many: {metric: events.purchase.count, window: 1m, above: 10}
"""

folder = FOLDER / f"format_{FORMAT}"
folder.mkdir()
config, _ = parse_config({"a.yaml": CONFIG.encode()})
lines = made_events(400, seed=9)[: TURNS * TURN_EVENTS]
work = KeptWork(config)
work.take(lines, range(STOPPED_AT - 1))
work.counts()
work.take(lines, [STOPPED_AT - 1])
work.save(folder)
(folder / "config.json").write_bytes(config.to_json())
(folder / "events.jsonl").write_bytes(b"\n".join(lines))
