"""Compiles every kernel once, by judging a handful of events that use all of them: ``python -m streams.warm_up``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from streams.kernel_cache import is_warm, mark_warm, use_kernel_cache

_CONFIG = b"""
features:
  devices:  {entity: user_id, distinct: device_id}
  users:    {entity: device_id, distinct: user_id, exclude: self, window: 1h}
  near:     {entity: gps_cell, distinct: user_id}
  segment:  {entity: phone_segment, distinct: user_id}
  visits:   {entity: ip_prefix_24, count: view, window: 10m}
  prefix:   {entity: ip_prefix_48, count: "*"}
  tagged:   {entity: attrs.tag, count: view}
  since:    {entity: user_id, since: view}
rules:
  often: {when: users >= 1 and dwell_ms / 2 < 10000 and not (channel == "a"), weight: 0.5}
models:
  odd: {kind: half_space_trees, trees: 3, height: 3, features: [users, dwell_ms]}
  told: {kind: river, class: linear_model.LogisticRegression, scale: true, features: [users, dwell_ms]}
funnels:
  buy: {steps: [view, purchase], within: 1h, by: [channel, attrs.tag], windows: [all, 1d]}
  tie: {steps: [view, view], order: ties_allowed}
dau: {by: [channel]}
retention: {}
campaigns:
  c1: {timezone: Asia/Shanghai}
lists:
  devices: {kind: white, entity: device_id, file: devices.csv}
  tags: {kind: grey, entity: attrs.tag, file: tags.csv}
  segments: {kind: grey, entity: phone_segment, file: segments.csv}
  ips: {kind: black, entity: ip, file: ips.csv}
  phones: {kind: grey, entity: phone, file: phones.csv}
"""
_LISTS = {
    "devices.csv": b'value,reason\n"d""2",a\n',
    "tags.csv": b"value,reason,source,expires\nx,a,b,2030-01-01\n",
    "segments.csv": b"value\n1380000\n",
    "ips.csv": b"value\n10.0.0.0/24\n10.0.0.7\n2001:db8::/32\n",
    "phones.csv": b"value\n138\nhash\n",
}
_EVENT = (
    '{"event_id":"e%d","event":"%s","ts":%d,"user_id":"u%d","device_id":"d1","ip":"%s","phone":"1380000%04d",'
    '"channel":"a\\u5fae","campaign":"c%d","dwell_ms":%d,"amount_minor":5,"label":1,"lat":31.2,"lon":121.4,"tag":%s}'
)


def warm_up() -> bool:
    """Compile what is not compiled yet; returns whether anything was to be done. Up to a minute, then 3 s."""
    folder = use_kernel_cache()
    if is_warm(folder):
        return False
    _run()
    mark_warm(folder)
    return True


def _run() -> None:
    # Only now: the imports compile nothing yet, but bind the kernels to their cache.
    from schemas.keys import KeyRing
    from streams.config_files import read_config_folder
    from streams.list_books import ListBooks
    from streams.replay import Core, replay

    ring = KeyRing(bytes(32))
    with tempfile.TemporaryDirectory() as name:
        recording = Path(name) / "events.jsonl"
        recording.write_text("\n".join([*(_event(i) for i in range(600)), "{", "[]"]))
        for file, content in {"warm_up.yaml": _CONFIG, **_LISTS}.items():
            (Path(name) / file).write_bytes(content)
        read = read_config_folder(Path(name))
        config, lists = read.config, ListBooks(ring, read.lists.__getitem__).of(read.config)
        replay(
            [recording], config, ring, Path(name) / "out", lists=lists, batch_size=100, label_delay_ms=60_000
        )
    core = Core(config, ring, lists)
    core.restore(core.snapshot())


def _event(i: int) -> str:
    address = "2001:db8::1" if i % 5 == 0 else f"10.0.0.{i % 250}"
    tag = ('"x"', "1.5", "true")[i % 3]
    event = "view" if i % 2 else "purchase"
    return _EVENT % (i, event, 1_760_000_000_000 + i * 60_000, i % 40, address, i, i % 2, i * 10, tag)


if __name__ == "__main__":
    if warm_up():
        sys.stdout.write("kernels compiled\n")
