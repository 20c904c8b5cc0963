"""What children tell and what it says of the worker; the text that Prometheus reads, read by Prometheus' own parser."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams.meters import METRICS, Meters, Pulse, Sample, as_text
from streams.pulse import Watchdog
from streams.transport import TP
from streams.vitals import SILENT_S, Vitals

WELL = Pulse(ready=True, away={}, stalled={}, samples=[])
CLICKS = TP("clicks", 0)


class Clock:
    """Seconds that go on when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_every_metric_is_text_that_prometheus_reads() -> None:
    odd = 'a "quoted"\\ name\nof two lines'
    told = [
        (part, Sample(name, tuple(odd for _ in metric.labels), number / 7))
        for part in ("engine", "rollup")
        for number, (name, metric) in enumerate(METRICS.items())
    ]
    families = {family.name: family for family in text_string_to_metric_families(as_text(told))}
    assert families.keys() == {f"woolwatch_{name.removesuffix('_total')}" for name in METRICS}
    for number, (name, metric) in enumerate(METRICS.items()):
        family = families[f"woolwatch_{name.removesuffix('_total')}"]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        assert [sample.value for sample in family.samples] == [number / 7] * 2
        assert [sample.labels["part"] for sample in family.samples] == ["engine", "rollup"]
        assert all(sample.labels[label] == odd for sample in family.samples for label in metric.labels)


def test_names_say_what_is_counted_and_in_what_unit() -> None:
    units = (
        "_total",
        "_records",
        "_seconds",
        "_bytes",
        "_rows",
        "_partitions",
        "_level",
        "keys",
        "_refused",
        "_waiting",
    )
    assert all(name.endswith(units) for name in METRICS)
    assert all((metric.kind == "counter") == name.endswith("_total") for name, metric in METRICS.items())


def test_counters_add_up() -> None:
    meters = Meters()
    meters.count("turns_total", "3")
    meters.count("turns_total", "3", by=4)
    assert list(meters.samples()) == [Sample("turns_total", ("3",), 5)]


@pytest.mark.parametrize(
    ("pulse", "ready", "well"),
    [
        (WELL, True, True),
        (msgspec.structs.replace(WELL, ready=False), False, True),
        (msgspec.structs.replace(WELL, away={"Redis": 3.0}), False, True),
        (msgspec.structs.replace(WELL, stalled={"clicks-0": 61.0}), False, False),
    ],
)
def test_a_worker_is_as_well_as_its_children(pulse: Pulse, ready: bool, well: bool) -> None:
    vitals = Vitals(("engine", "rollup"))
    assert vitals.unready()
    assert not vitals.unwell()
    vitals.take("engine", pulse)
    assert vitals.unready()
    vitals.take("rollup", WELL)
    assert (not vitals.unready(), not vitals.unwell()) == (ready, well)


def test_a_child_that_falls_silent_is_missed() -> None:
    clock = Clock()
    vitals = Vitals(("engine",), clock)
    vitals.take("engine", WELL)
    clock.now += SILENT_S
    assert not vitals.unwell()
    clock.now += 1
    assert vitals.unwell() == vitals.unready() == ["the engine has said nothing for 11 s"]
    vitals.take("engine", WELL)
    assert not vitals.unready()


def test_what_is_no_pulse_is_passed_over() -> None:
    async def listen() -> Vitals:
        stream = asyncio.StreamReader()
        for line in (b"hello\n", b'{"ready": 1}\n', msgspec.json.encode(WELL) + b"\n", b"[]\n"):
            stream.feed_data(line)
        stream.feed_eof()
        vitals = Vitals(("engine",))
        await vitals.listen("engine", stream)
        return vitals

    assert not asyncio.run(listen()).unready()


def test_input_without_progress_is_a_stall_and_progress_ends_it() -> None:
    clock = Clock()
    dog = Watchdog(clock)
    assert dog.look({CLICKS: 7}, patience_s=60) == {}
    clock.now += 60
    assert dog.look({CLICKS: 7}, patience_s=60) == {}
    clock.now += 1
    assert dog.look({CLICKS: 7}, patience_s=60) == {"clicks-0": 61.0}
    assert dog.look({CLICKS: 7}, patience_s=600) == {}
    assert dog.look({CLICKS: 8}, patience_s=60) == {}
    clock.now += 61
    assert dog.look({}, patience_s=60) == {}  # no input: nothing to be done
    assert dog.look({CLICKS: 8}, patience_s=60) == {}
