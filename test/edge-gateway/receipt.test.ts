import assert from 'node:assert/strict';
import { test } from 'node:test';
import { receiptFor, receiptPayload } from '../../edge-gateway/receipt.ts';

const asked = (topic: string, responseTopic?: string) =>
  receiptFor({
    topic,
    properties: { ...(responseTopic !== undefined && { responseTopic }), correlationData: Buffer.from('7') },
  });

test('a receipt goes to the device that asked, with its correlation data', () => {
  assert.deepEqual(asked('devices/x/telemetry', 'devices/x/receipts'), {
    outcome: 'due',
    receipt: { topic: 'devices/x/receipts', correlationData: Buffer.from('7') },
  });
  assert.equal(asked('sensors/temperature/x', 'devices/x/r/1').outcome, 'due');
  assert.equal(asked('assets/x/telemetry', 'devices/x/r').outcome, 'due');
  assert.equal(asked('devices/x/telemetry').outcome, 'none');
  assert.equal(asked('devices/x/telemetry', '').outcome, 'none');
  assert.equal(receiptFor({ topic: 'devices/x/telemetry' }).outcome, 'none');
  assert.deepEqual(JSON.parse(receiptPayload(5)), { outcome: 'stored', at: 5 });
});

test('and to nobody else, whatever it asks for (S)', () => {
  for (const topic of [
    'devices/y/receipts',
    'devices/xy/receipts',
    'devices/x',
    'devices/x/',
    'devices/+/receipts',
    'devices/x/#',
    'devices/x/\0',
    `devices/x/${'r'.repeat(300)}`,
    '$SYS/broker',
    'holdfast',
  ]) {
    assert.equal(asked('devices/x/telemetry', topic).outcome, 'refused', topic);
  }
  assert.equal(asked('nobody/knows', 'devices/x/receipts').outcome, 'refused');
});
