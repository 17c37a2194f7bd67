/** Where a buffer is heading, from what was seen of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  forecastOf,
  remember,
  type Sample,
  unsettledBytesOf,
  WINDOW_MS,
} from '../../edge-gateway/forecast.ts';
import { RangeSet } from '../../protocol/range-set.ts';

const now = { bytesMax: 1_000_000, connected: true, underWayMs: 5000 };
const SECOND = 1000;

/** Samples every 5 s for a minute: so much at the start, so much more per second. */
function course(o: {
  bytes: number;
  bytesPerS: number;
  messages: number;
  messagesPerS: number;
  taken: number;
}) {
  return Array.from(
    { length: 13 },
    (_, i): Sample => ({
      at: i * 5 * SECOND,
      unsettledBytes: o.bytes + i * 5 * o.bytesPerS,
      unsettledMessages: o.messages + i * 5 * o.messagesPerS,
      messages: i * 5 * o.taken,
    }),
  );
}

test('without a link it fills, and drains at no time that is in sight', () => {
  const filling = course({ bytes: 0, bytesPerS: 1000, messages: 0, messagesPerS: 10, taken: 10 });
  assert.deepEqual(forecastOf(filling, { ...now, connected: false }), {
    fullInSeconds: 940,
    drainedInSeconds: null,
  });
});

test('compaction counts: it fills as fast as its bytes grow, not its messages', () => {
  const compacted = course({ bytes: 0, bytesPerS: 100, messages: 0, messagesPerS: 10, taken: 10 });
  assert.equal(forecastOf(compacted, { ...now, connected: false }).fullInSeconds, 9940);
});

test('a backlog that goes down is drained when its messages are gone', () => {
  const draining = course({
    bytes: 900_000,
    bytesPerS: -5000,
    messages: 90_000,
    messagesPerS: -500,
    taken: 10,
  });
  assert.deepEqual(forecastOf(draining, now), { fullInSeconds: null, drainedInSeconds: 120 });
});

test('a link that carries less than comes in never drains it', () => {
  const losing = course({ bytes: 0, bytesPerS: 500, messages: 1000, messagesPerS: 5, taken: 10 });
  assert.deepEqual(forecastOf(losing, now), { fullInSeconds: 1940, drainedInSeconds: null });
});

test('what is on its way is no backlog, unless there is no link', () => {
  const keepingUp = course({ bytes: 5000, bytesPerS: 1, messages: 40, messagesPerS: 0, taken: 10 });
  assert.deepEqual(forecastOf(keepingUp, now), { fullInSeconds: null, drainedInSeconds: 0 });
  assert.equal(forecastOf(keepingUp, { ...now, connected: false }).drainedInSeconds, null);
});

test('nothing is said of a few seconds, nor of none at all', () => {
  const few = course({ bytes: 0, bytesPerS: 1000, messages: 0, messagesPerS: 10, taken: 10 }).slice(1, 4);
  assert.deepEqual(forecastOf(few, now), { fullInSeconds: null, drainedInSeconds: null });
  assert.deepEqual(forecastOf([], now), { fullInSeconds: null, drainedInSeconds: null });
});

test('samples are kept for the window alone', () => {
  let samples: Sample[] = [];
  for (let at = 0; at <= 2 * WINDOW_MS; at += 5000) {
    samples = remember(samples, { at, unsettledBytes: 0, unsettledMessages: 0, messages: 0 });
  }
  assert.equal(samples.at(-1)!.at - samples[0]!.at, WINDOW_MS - 5000);
});

test('of a log those bytes count that are not settled, in proportion', () => {
  const log = { firstSequence: 101, nextSequence: 201, bytes: 1000, settled: RangeSet.of(1, 151) };
  assert.equal(unsettledBytesOf(log), 500);
  assert.equal(unsettledBytesOf({ ...log, settled: RangeSet.of(1, 999) }), 0);
  assert.equal(unsettledBytesOf({ ...log, nextSequence: 101 }), 0);
});
