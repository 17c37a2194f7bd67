import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { routeTopic } from '../../edge-gateway/topics.ts';
import { isDeviceId } from '../../protocol/ids.ts';

test('the documented shapes', () => {
  const expected = {
    'devices/pump-1/telemetry': { device: 'pump-1', kind: 'telemetry', prefix: '', bareName: 'value' },
    'devices/pump-1/events': { device: 'pump-1', kind: 'event', prefix: 'event.', bareName: 'event' },
    'devices/pump-1/status': { device: 'pump-1', kind: 'status', prefix: 'status.', bareName: 'status' },
    'devices/pump-1/location': {
      device: 'pump-1',
      kind: 'location',
      prefix: 'location.',
      bareName: 'location',
    },
    'assets/A:7.b/telemetry': { device: 'A:7.b', kind: 'telemetry', prefix: '', bareName: 'value' },
    'sensors/temperature/t_9': { device: 't_9', kind: 'telemetry', prefix: '', bareName: 'temperature' },
  };
  for (const [topic, route] of Object.entries(expected)) {
    assert.deepEqual(routeTopic(topic), { ok: true, route }, topic);
  }
});

test('a topic that fits nothing says which would', () => {
  for (const topic of [
    '',
    '/',
    'devices',
    'devices/x',
    'devices/x/',
    'devices/x/telemetry/',
    '/devices/x/telemetry',
    'devices/x/telemetry/y',
    'devices/x/constructor',
    'devices/x/__proto__',
    'devices/x/toString',
    'devices/x/Telemetry',
    'assets/x/events',
    'sensors/temperature',
    'zigbee2mqtt/kitchen/light',
    '$SYS/broker/uptime',
  ]) {
    const outcome = routeTopic(topic);
    assert.equal(outcome.ok, false, topic);
    assert.match((outcome as { reason: string }).reason, /expected devices\/\{id\}\/telemetry/, topic);
  }
});

test('a bad device name says what a good one is', () => {
  for (const device of ['', ' ', 'a b', 'ünit', 'a*', '>', '+', '#', 'a\0', '😀', 'x'.repeat(129)]) {
    for (const topic of [
      `devices/${device}/telemetry`,
      `assets/${device}/telemetry`,
      `sensors/t/${device}`,
    ]) {
      const outcome = routeTopic(topic);
      assert.equal(outcome.ok, false, topic);
      assert.match((outcome as { reason: string }).reason, /device name.*expected 1 to 128/, topic);
    }
  }
});

test('any topic gives a route with a valid device or a reason, never an exception (H)', () => {
  const level = fc.oneof(
    fc.constantFrom(
      'devices',
      'assets',
      'sensors',
      'telemetry',
      'events',
      'status',
      'location',
      '__proto__',
      '',
    ),
    fc.string({ unit: 'binary', maxLength: 12 }),
  );
  fc.assert(
    fc.property(fc.array(level, { maxLength: 5 }), levels => {
      const outcome = routeTopic(levels.join('/'));
      if (outcome.ok) assert.ok(isDeviceId(outcome.route.device));
      else assert.notEqual(outcome.reason, '');
    }),
    { numRuns: 2000 },
  );
});
