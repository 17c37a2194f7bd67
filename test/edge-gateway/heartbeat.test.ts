/** What a gateway's heartbeat vouches for, and what it does not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type HeartbeatView, newHeartbeats } from '../../edge-gateway/heartbeat.ts';
import type { LogInfo } from '../../edge-gateway/log/disk-buffer.ts';
import { acknowledged, newSendPlan, type SendPlan, settle, take } from '../../edge-gateway/send-plan.ts';
import { type LogId, logId } from '../../protocol/ids.ts';
import { RangeSet } from '../../protocol/range-set.ts';

const T0 = Date.UTC(2026, 0, 15, 12);
const CURRENT = logId('0193f5a0c1e25b6d7e8f90a1b2c3d4e5');
const OLDER = logId('0193f5a0c1e25b6d7e8f90a1b2c3d4e4');

const log = (id: LogId, nextSequence: number, more: Partial<LogInfo> = {}): LogInfo => ({
  logId: id,
  current: id === CURRENT,
  firstSequence: 1,
  nextSequence,
  lost: RangeSet.empty,
  settled: RangeSet.empty,
  thinned: RangeSet.empty,
  missing: RangeSet.empty,
  bytes: 1,
  bootId: null,
  ...more,
});

/** The view `seconds` after T0. */
const view = (
  seconds: number,
  logs: readonly LogInfo[],
  plans: Record<string, SendPlan>,
  pending = 0,
): HeartbeatView => ({
  nowMs: T0 + seconds * 1000,
  monotonicMs: seconds * 1000,
  logs,
  messagesPending: pending,
  planOf: ({ logId: id }) => plans[id],
  streamCreated: 'stream',
});

const inStream = (from: number, to: number, lane: 'live' | 'backfill' = 'live', created = 'stream') =>
  acknowledged(take(newSendPlan(), { from, to }, created, lane), { from, to }, 1);

test('with all in the stream the word is complete until now', () => {
  const heartbeats = newHeartbeats();
  assert.equal(
    heartbeats.next(view(0, [log(CURRENT, 11)], { [CURRENT]: inStream(1, 11) })).completeUntil,
    T0,
  );
});

test('an outage holds it where it began, until the backlog is settled', () => {
  const heartbeats = newHeartbeats();
  const until = (seconds: number, next: number, plan: SendPlan, pending = 0) =>
    (heartbeats.next(view(seconds, [log(CURRENT, next)], { [CURRENT]: plan }, pending)).completeUntil - T0) /
    1000;
  const sent = inStream(1, 11);
  assert.equal(until(0, 11, sent), 0);
  assert.equal(until(5, 21, sent), 0, 'ten wait');
  assert.equal(until(600, 500, sent), 0);
  const newest = acknowledged(take(sent, { from: 400, to: 500 }, 'stream'), { from: 400, to: 500 }, 2);
  assert.equal(until(605, 500, newest), 0, 'the newest went live, the backlog waits');
  const range = { from: 11, to: 400 };
  const backlog = acknowledged(take(newest, range, 'stream', 'backfill'), range, 3);
  assert.equal(until(610, 500, backlog), 0, 'the stream has it in the other lane, history has not');
  assert.equal(until(615, 500, settle(backlog, RangeSet.of(1, 400))), 615);
});

test('what only another stream had is still to come: the word begins anew, and says which stream it is about', () => {
  const heartbeats = newHeartbeats();
  const before = inStream(1, 11);
  const next = (seconds: number, plan: SendPlan, streamCreated: string) =>
    heartbeats.next({ ...view(seconds, [log(CURRENT, 11)], { [CURRENT]: plan }), streamCreated });
  const first = next(0, before, 'stream');
  assert.deepEqual([first.completeUntil, first.streamCreated], [T0, 'stream']);
  const second = next(5, before, 'another');
  assert.deepEqual([second.completeUntil, second.streamCreated], [0, 'another']);
  const third = next(10, settle(before, RangeSet.of(1, 11)), 'another');
  assert.equal(third.completeUntil, T0 + 10_000);
});

test('under steady load the word is as old as the answers of the stream', () => {
  const heartbeats = newHeartbeats();
  const until = (seconds: number, next: number, acked: number) =>
    (heartbeats.next(view(seconds, [log(CURRENT, next)], { [CURRENT]: inStream(1, acked) })).completeUntil -
      T0) /
    1000;
  until(0, 11, 11);
  assert.equal(until(5, 111, 100), 0);
  assert.equal(until(10, 211, 200), 5);
  assert.equal(until(15, 311, 300), 10);
});

test('what is not on disk yet has arrived all the same', () => {
  const heartbeats = newHeartbeats();
  const sent = inStream(1, 11);
  heartbeats.next(view(0, [log(CURRENT, 11)], { [CURRENT]: sent }));
  const waiting = heartbeats.next(view(5, [log(CURRENT, 11)], { [CURRENT]: sent }, 3));
  assert.equal(waiting.completeUntil, T0);
});

test('an older log, a lost range and a stream that was replaced hold it back too', () => {
  const sent = inStream(1, 11);
  const complete = (logs: readonly LogInfo[], plans: Record<string, SendPlan>) =>
    newHeartbeats().next(view(0, logs, plans)).completeUntil === T0;
  assert.equal(complete([log(OLDER, 5), log(CURRENT, 11)], { [CURRENT]: sent }), false);
  const older = settle(newSendPlan(), RangeSet.of(1, 5));
  assert.equal(complete([log(OLDER, 5), log(CURRENT, 11)], { [CURRENT]: sent, [OLDER]: older }), true);
  assert.equal(complete([log(CURRENT, 11)], { [CURRENT]: inStream(1, 11, 'live', 'earlier') }), false);
  const gone = log(OLDER, 5, { firstSequence: 5, lost: RangeSet.of(1, 5) });
  assert.equal(complete([gone, log(CURRENT, 11)], { [CURRENT]: sent }), false);
});

test('hearing begins anew after a break, and when the clock was set', () => {
  const heartbeats = newHeartbeats();
  const since = (seconds: number) => heartbeats.next(view(seconds, [log(CURRENT, 1)], {})).hearingSince;
  const hear = (seconds: number, hears: boolean, setBy = 0) =>
    heartbeats.hearing({ hears, coversSite: true }, T0 + seconds * 1000 + setBy, seconds * 1000);
  assert.equal(since(0), null);
  hear(1, true);
  assert.equal(since(2), T0 + 1000);
  hear(3, false);
  assert.equal(since(4), null);
  hear(5, true);
  hear(6, true);
  assert.equal(since(7), T0 + 5000);
  hear(8, true, -3_600_000);
  const next = heartbeats.next({ ...view(9, [log(CURRENT, 1)], {}), nowMs: T0 + 9000 - 3_600_000 });
  assert.equal(next.hearingSince, T0 + 8000 - 3_600_000);
  assert.equal(next.coversSite, true);
  assert.ok(next.completeUntil <= next.at);
});

test('what a copy of a log lacks is not its to bring', () => {
  const copy = log(OLDER, 11, { missing: RangeSet.of(6, 11) });
  const plans = { [OLDER]: inStream(1, 6), [CURRENT]: inStream(1, 11) };
  const until = (older: LogInfo) =>
    newHeartbeats().next(view(9, [older, log(CURRENT, 11)], plans)).completeUntil;
  assert.equal(until(copy), T0 + 9000);
  assert.notEqual(until(log(OLDER, 11)), T0 + 9000);
});

test('what was complete by a clock that ran ahead says nothing by one that was set back', () => {
  const heartbeats = newHeartbeats();
  const ahead = (seconds: number, plan: SendPlan, byMs: number) => {
    const seen = view(seconds, [log(CURRENT, 11)], { [CURRENT]: plan });
    return heartbeats.next({ ...seen, nowMs: seen.nowMs + byMs });
  };
  assert.equal(ahead(0, inStream(1, 11), 3_600_000).completeUntil, T0 + 3_600_000);
  assert.equal(ahead(5, inStream(1, 5), 0).completeUntil, 0, 'some are still to come');
  assert.equal(ahead(10, inStream(1, 11), 0).completeUntil, T0 + 10_000);
});
