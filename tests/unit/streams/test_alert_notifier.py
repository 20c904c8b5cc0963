"""Queues of channels: tried until it works or too long, never twice, and never without bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

import streams.alert_notifier
from schemas.alerts import Alert
from schemas.config import AlertChannel
from sinks.alert_channels import Channel
from sinks.alert_sender import Reply
from sinks.alert_stream import AlertStream
from sinks.alert_tables import Delivery
from streams.alert_notifier import Notifier
from tests.alert_receiver import made_alert

SENT, AGAIN, NEVER = (
    Reply(sent=True),
    Reply(sent=False, again=True, reason="down"),
    Reply(sent=False, reason="no"),
)

Answer = Callable[[Sequence[Alert]], list[Reply]]


class Known:
    """What Redis would remember."""

    def __init__(self, **sent: int) -> None:
        self.sent = sent

    async def sent_at(self, channel: str, alert: Alert) -> int | None:
        return self.sent.get(f"{channel}:{alert.key}")

    async def note_sent(self, channel: str, alert: Alert, *, offset: int) -> None:
        self.sent[f"{channel}:{alert.key}"] = offset


class Scripted(Channel):
    """Answers each call with what the script says."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("ops", AlertChannel(), "url")
        self._answer = answer

    async def send(self, alerts: Sequence[Alert]) -> list[Reply]:
        return self._answer(alerts)


def run(
    monkeypatch: pytest.MonkeyPatch,
    told: list[tuple[int, Alert]],
    answer: Answer,
    *,
    known: Known | None = None,
    give_up_s: float = 3600,
) -> list[Delivery | None]:
    """How all of them ended, in the order in which they did."""
    monkeypatch.setattr(streams.alert_notifier, "_FIRST_PAUSE_S", 0.0)

    async def main() -> list[Delivery | None]:
        ended: list[Delivery | None] = []
        done = asyncio.Event()

        def end(delivery: Delivery | None) -> None:
            ended.append(delivery)
            if len(ended) == len(told):
                done.set()

        stream = cast("AlertStream", known or Known())
        notifier = Notifier(Scripted(answer), stream, give_up_s=give_up_s)
        for offset, alert in told:
            notifier.put(alert, offset, end)
        task = asyncio.create_task(notifier.run())
        await asyncio.wait_for(done.wait(), 60)
        task.cancel()
        return ended

    return asyncio.run(main())


def shown(ended: list[Delivery | None]) -> list[Any]:
    return [None if end is None else (end.offset, end.outcome, end.attempts, end.reason) for end in ended]


def test_what_fails_for_a_while_is_sent_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def answer(alerts: Sequence[Alert]) -> list[Reply]:
        calls.append([alert.since_ms % 10 for alert in alerts])
        return [AGAIN if alert.since_ms % 10 == 1 and len(calls) < 4 else SENT for alert in alerts]

    ended = run(monkeypatch, [(i, made_alert(i)) for i in range(3)], answer)
    assert shown(ended) == [(0, "sent", 1, None), (2, "sent", 1, None), (1, "sent", 4, None)]
    assert calls == [[0, 1, 2], [1], [1], [1]]


def test_what_can_not_work_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(run(monkeypatch, [(7, made_alert())], lambda _: [NEVER])) == [(7, "failed", 1, "no")]


def test_a_dead_channel_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = run(monkeypatch, [(7, made_alert())], lambda _: [AGAIN], give_up_s=0)
    assert shown(ended) == [(7, "failed", 1, "down")]


def test_what_was_sent_before_a_crash_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    alert = made_alert()
    known = Known(**{f"ops:{alert.key}": 7})
    assert shown(run(monkeypatch, [(7, alert), (8, alert)], lambda _: [NEVER], known=known)) == [
        (7, "sent", 0, None),
        None,
    ]


def test_a_repeat_in_one_go_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def answer(alerts: Sequence[Alert]) -> list[Reply]:
        calls.append(len(alerts))
        return [SENT] * len(alerts)

    alert = made_alert()
    assert shown(run(monkeypatch, [(7, alert), (8, alert)], answer)) == [(7, "sent", 1, None), None]
    assert calls == [1]


def test_too_many_push_the_oldest_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams.alert_notifier, "MOST_WAITING", 2)
    ended = run(monkeypatch, [(i, made_alert(i)) for i in range(4)], lambda alerts: [SENT] * len(alerts))
    assert [end.outcome for end in ended if end is not None] == ["failed", "failed", "sent", "sent"]


def test_what_waits_and_what_ended_can_be_watched() -> None:
    replies = iter([[SENT, NEVER, AGAIN], [SENT]])

    async def main() -> list[list[tuple[tuple[str, ...], float]]]:
        notifier = Notifier(Scripted(lambda _: next(replies)), cast("AlertStream", Known()), give_up_s=3600)
        for offset in range(3):
            notifier.put(made_alert(offset), offset, lambda _: None)
        seen = []
        for _ in range(3):
            seen.append([(sample.labels, sample.value) for sample in notifier.samples()])
            await notifier._send_some()
        return seen

    sent, failed = ("ops", "sent"), ("ops", "failed")
    assert asyncio.run(main()) == [
        [(("ops",), 3)],
        [(("ops",), 1), (sent, 1), (failed, 1)],
        [(("ops",), 0), (sent, 2), (failed, 1)],
    ]
