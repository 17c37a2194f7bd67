import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Message } from '../../edge-gateway/log/frame.ts';
import { newRedelivery, type Redelivery } from '../../edge-gateway/redelivery.ts';
import { frame } from './frames.ts';

const TOPIC = 'devices/x/telemetry';
const bare = (packetId: number, payload = '{"a":1}', more: Partial<Message> = {}): Message =>
  frame(1, TOPIC, payload, { packetId, ...more });
const again = (message: Message): Message => ({ ...message, duplicate: true });

function withSession(receiveMaximum = 8, window = 8): Redelivery {
  const redelivery = newRedelivery({ receiveMaximum, window });
  redelivery.connected(true);
  return redelivery;
}

test('what the broker sends again is known by DUP, session, packet id and content together', () => {
  const redelivery = withSession();
  const sent = bare(5);
  assert.equal(redelivery.isKnown(sent), false);
  redelivery.remember(sent);
  assert.equal(redelivery.isKnown(again(sent)), true);

  // One thing missing: unsure, so it is stored (A).
  assert.equal(redelivery.isKnown(sent), false, 'without DUP');
  assert.equal(redelivery.isKnown(again(bare(6))), false, 'another packet id');
  assert.equal(redelivery.isKnown(again(bare(5, '{"a":2}'))), false, 'another payload');
  assert.equal(redelivery.isKnown(again({ ...sent, topic: 'devices/y/telemetry' })), false, 'another topic');
  assert.equal(redelivery.isKnown(again({ ...sent, qos: 0 })), false, 'QoS 0 has no packet id');
  redelivery.connected(false);
  assert.equal(redelivery.isKnown(again(sent)), false, 'without a session the ids start anew');
  redelivery.connected(true);
  assert.equal(redelivery.isKnown(again(sent)), false, 'and what was before is forgotten');
});

test('before the first connection nothing is known by its packet id', () => {
  const redelivery = newRedelivery({ receiveMaximum: 8, window: 8 });
  redelivery.remember(bare(5));
  assert.equal(redelivery.isKnown(again(bare(5))), false);
  // Found on disk at start, then the session is there: the rule holds.
  redelivery.connected(true);
  assert.equal(redelivery.isKnown(again(bare(5))), true);
});

test('the newest message of a packet id counts', () => {
  const redelivery = withSession();
  redelivery.remember(bare(5, '{"a":1}'));
  redelivery.remember(bare(5, '{"a":2}'));
  assert.equal(redelivery.isKnown(again(bare(5, '{"a":1}'))), false);
  assert.equal(redelivery.isKnown(again(bare(5, '{"a":2}'))), true);
  // One that is too long to remember must not leave the older one standing for its id.
  redelivery.remember(bare(5, `"${'x'.repeat(5000)}"`));
  assert.equal(redelivery.isKnown(again(bare(5, '{"a":2}'))), false);
});

test("a device's own retry is known by topic and payload when it carries its own time", () => {
  const redelivery = withSession();
  const stamped = bare(5, '{"ts":1768478400000,"a":1}');
  redelivery.remember(stamped);
  assert.equal(redelivery.isKnown(bare(9, '{"ts":1768478400000,"a":1}')), true);
  assert.equal(redelivery.isKnown(bare(9, '{"ts":1768478400000,"a":1}', { qos: 0 })), true);
  assert.equal(redelivery.isKnown(bare(9, '{"ts":1768478400001,"a":1}')), false);
  assert.equal(redelivery.isKnown({ ...stamped, topic: 'devices/y/telemetry' }), false);
  redelivery.connected(false);
  assert.equal(redelivery.isKnown(stamped), true, 'no session is needed');
  redelivery.remember(bare(6, '{"timestamp":"2026-01-15T12:00:00Z","a":1}'));
  assert.equal(redelivery.isKnown(bare(7, '{"timestamp":"2026-01-15T12:00:00Z","a":1}')), true);
});

test('the same value twice without a time is two readings', () => {
  const redelivery = withSession();
  redelivery.remember(bare(1));
  assert.equal(redelivery.isKnown(bare(2)), false);
});

test('a payload that merely mentions a timestamp is no repeat: without its own time every copy is a reading (A)', () => {
  for (const payload of [
    '{"mode":"ts","temperature":21}',
    '{"ts":null,"temperature":21}',
    '{"a":{"ts":5},"temperature":21}',
    '[{"ts":1,"a":1},{"a":2}]',
    '[]',
    '"ts"',
  ]) {
    const redelivery = withSession();
    redelivery.remember(bare(1, payload));
    assert.equal(redelivery.isKnown(bare(2, payload)), false, payload);
  }
  for (const payload of [
    '{"a":1,"ts":5}',
    '[{"ts":1,"a":1},{"timestamp":"2026-01-15T12:00:00Z"}]',
    ' { "ts" : 5 }',
  ]) {
    const redelivery = withSession();
    redelivery.remember(bare(1, payload));
    assert.equal(redelivery.isKnown(bare(2, payload)), true, payload);
  }
});

test('content that is long, or was cut, is stored rather than compared', () => {
  const redelivery = withSession();
  const long = bare(5, `{"ts":1,"a":"${'x'.repeat(4096)}"}`);
  redelivery.remember(long);
  assert.equal(redelivery.isKnown(again(long)), false);
  const cut = bare(6, '{"ts":1,"a":1}', { payloadBytes: 300_000 });
  redelivery.remember(cut);
  assert.equal(redelivery.isKnown(again(cut)), false);
});

test('topic and payload cannot be shifted into one another', () => {
  const redelivery = withSession();
  redelivery.remember({ ...bare(5, 'b\n{"ts":1}'), topic: 'a' });
  assert.equal(redelivery.isKnown({ ...bare(5, '{"ts":1}'), topic: 'a\nb' }), false);
});

test('memory is bounded: the oldest is forgotten, and then stored again (F)', () => {
  const redelivery = withSession(3, 2);
  for (let id = 1; id <= 4; id++) redelivery.remember(bare(id));
  const known = [1, 2, 3, 4].filter(id => redelivery.isKnown(again(bare(id))));
  assert.deepEqual(known, [2, 3, 4]);
  for (let ts = 1; ts <= 3; ts++) redelivery.remember(bare(60_000, `{"ts":${ts}}`, { qos: 0 }));
  const stamped = [1, 2, 3].filter(ts => redelivery.isKnown(bare(9, `{"ts":${ts}}`)));
  assert.deepEqual(stamped, [2, 3]);
});

test('nothing that was not remembered is ever known', () => {
  const messages = fc
    .record({
      packetId: fc.integer({ min: 1, max: 3 }),
      payload: fc.constantFrom('{"a":1}', '{"a":2}', '{"ts":1,"a":1}', '{"ts":2,"a":1}', '5'),
      topic: fc.constantFrom('devices/x/telemetry', 'devices/y/telemetry'),
      qos: fc.constantFrom(0 as const, 1 as const),
      duplicate: fc.boolean(),
    })
    .map(({ payload, packetId, ...rest }) => bare(packetId, payload, rest));
  const steps = fc.array(
    fc.oneof({ weight: 6, arbitrary: messages }, { weight: 1, arbitrary: fc.boolean() }),
    {
      maxLength: 40,
    },
  );
  fc.assert(
    fc.property(steps, list => {
      const redelivery = newRedelivery({ receiveMaximum: 2, window: 2 });
      const seen = new Set<string>();
      for (const step of list) {
        if (typeof step === 'boolean') {
          redelivery.connected(step);
          continue;
        }
        const content = `${step.topic} ${Buffer.from(step.payload).toString()}`;
        if (redelivery.isKnown(step)) assert.ok(seen.has(content), content);
        else redelivery.remember(step);
        seen.add(content);
      }
    }),
    { numRuns: 1000 },
  );
});
