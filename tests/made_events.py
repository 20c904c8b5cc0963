"""A recording for tests: people and a device farm, with repeats, late, broken and odd events; the same every time."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

START_MS = 1_760_000_000_000
STEPS = ("product_view", "add_to_cart", "purchase")
CONFIG = """
features:
  device_other_users:     {entity: device_id, distinct: user_id, exclude: self}
  device_other_users_1h:  {entity: device_id, distinct: user_id, exclude: self, window: 1h}
  ip_other_users:         {entity: ip, distinct: user_id, exclude: self}
  ip24_purchases_1h:      {entity: ip_prefix_24, count: purchase, window: 1h}
  user_events:            {entity: user_id, count: "*"}
  since_signup_s:         {entity: user_id, since: signup}
rules:
  shared_device: {when: device_other_users_1h >= 3, weight: 0.7}
  quick:         {when: dwell_ms < 900 and since_signup_s < 600, applies_to: [purchase], weight: 0.6}
  from_advert:   {when: channel == "ads" and ip_other_users >= 20, weight: 0.2}
models:
  anomaly: {kind: half_space_trees, trees: 5, height: 6, features: [device_other_users, dwell_ms], weight: 0.3}
funnels:
  purchase: {steps: [product_view, add_to_cart, purchase], within: 24h, by: [channel], windows: [all, 1d]}
dau: {by: [channel, platform]}
retention: {days: 3}
"""


LISTS = """
lists:
  staff:  {kind: white, entity: user_id, file: lists/staff.csv}
  farm:   {kind: black, entity: device_id, file: lists/farm.csv}
  rented: {kind: grey, entity: ip, file: lists/rented.csv, weight: 0.35}
"""
LIST_FILES = {
    "staff.csv": "value,reason\nu1,tests before the start\nf7,a friend\n",
    "farm.csv": f"value,reason,source,expires\nfarm2,seen in spring,ops,{START_MS + 900_000}\n",
    "rented.csv": "value,source\n10.1.1.0/24,whois\n10.1.0.0/16,\n::ffff:10.1.7.0/120,whois\n",
}


def write_config(folder: Path, **blocks: str) -> Path:
    """A config folder; ``blocks`` are further files by name."""
    (folder / "lists").mkdir(parents=True, exist_ok=True)
    (folder / "detectors.yaml").write_text(CONFIG)
    (folder / "lists.yaml").write_text(LISTS)
    for name, text in LIST_FILES.items():
        (folder / "lists" / name).write_text(text)
    for name, text in blocks.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def made_events(rows: int, seed: int = 1, *, broken: bool = True) -> list[bytes]:
    """JSON lines in the order of a recording, about two events a second; some 6 % of them are no plain events."""
    draw = random.Random(seed)
    lines: list[bytes] = []
    for i in range(rows):
        farm = draw.random() < 0.1
        user = f"f{draw.randrange(60)}" if farm else f"u{draw.randrange(max(20, rows // 12))}"
        ts = START_MS + i * 500 - draw.randrange(4000)
        event: dict[str, Any] = {
            "event_id": f"e{seed}-{i}",
            "event": draw.choice(
                ("signup", "product_view", "product_view", "add_to_cart", "purchase", "看广告")
            ),
            "ts": ts,
            "user_id": user,
            "device_id": f"farm{draw.randrange(4)}" if farm else f"d-{user}",
            "ip": f"10.1.{draw.randrange(3) if farm else draw.randrange(200)}.{draw.randrange(40)}",
            "channel": draw.choice(("ads", "search", "微信", None)),
            "platform": draw.choice(("ios", "android")),
            "campaign": draw.choice(("spring", "autumn")),
            "dwell_ms": draw.randrange(300) if farm else draw.randrange(60_000),
            "amount_minor": draw.randrange(5000),
        }
        if broken and draw.random() < 0.06:
            odd: tuple[dict[str, Any], ...] = (
                {"ts": ts - 2 * 3_600_000},
                {"event_id": f"e{seed}-{max(0, i - draw.randrange(1, 30))}", "user_id": None},
                {"lat": 31.2},
                {"ip": "1.2.3.999"},
                {"ts": "yesterday"},
                {"attr": {"nested": 1}},
                {"channel": 'quo"ted'},
                {"device_id": "", "ip": None},
                {"score": 1.5, "vip": True},
            )
            event.update(draw.choice(odd))
        lines.append(
            json.dumps({k: v for k, v in event.items() if v is not None}, ensure_ascii=i % 2 == 0).encode()
        )
        if broken and draw.random() < 0.02:
            lines.append(
                draw.choice((lines[-1], lines[max(0, len(lines) - 40)], b"{", b"[1]", b'{"event_id":"\xff"}'))
            )
    return lines


def write_recording(path: Path, lines: list[bytes]) -> Path:
    """The lines as a JSONL file."""
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path
