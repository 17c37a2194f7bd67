/** What a decoded batch must be, written apart from `protocol/batch-rules.ts` so that an error there shows. */
import assert from 'node:assert/strict';
import type { Batch, ReadingsBatch, ThinnedBatch } from '../../protocol/batch.ts';
import { limits } from '../../protocol/limits.ts';

export function checkBatch(batch: Batch): void {
  assert.match(batch.logId, /^[0-9a-f]{32}$/);
  assert.ok(Number.isSafeInteger(batch.firstSequence) && batch.firstSequence >= 0);
  assert.ok(Number.isSafeInteger(batch.count) && batch.count >= 1);
  assert.ok(Number.isSafeInteger(batch.firstSequence + batch.count));
  if (batch.settlement === 'lost') {
    assert.ok(batch.reason.isWellFormed());
    return;
  }
  if (batch.settlement === 'thinned') {
    checkThinned(batch);
    return;
  }
  assert.ok(batch.count <= limits.batchMessagesMax);
  checkReadings(batch);
}

function checkThinned({ logId, firstSequence, count, kept, ...batch }: ThinnedBatch): void {
  assert.deepEqual(
    [kept.settlement, kept.logId, kept.firstSequence, kept.count],
    ['raw', logId, firstSequence, count],
  );
  assert.ok(count < 2 ** 32);
  assert.ok([60_000, 600_000, 3_600_000, 86_400_000].includes(batch.intervalMs));
  assert.ok(batch.receivedFrom <= batch.receivedTo);
  assert.ok(Number.isFinite(batch.receivedFrom) && Number.isFinite(batch.receivedTo));
  const { length, devices, metrics, ...columns } = batch.summaries;
  assert.ok(length <= 65_536);
  assert.equal(new Set(devices).size, devices.length);
  for (const device of devices) assert.match(device, /^[A-Za-z0-9_.:-]{1,128}$/);
  assert.equal(new Set(metrics).size, metrics.length);
  for (const name of metrics) {
    assert.ok(name.isWellFormed() && Buffer.byteLength(name) <= limits.metricNameBytesMax);
  }
  for (const column of Object.values(columns)) assert.equal(column.length, length);
  const seen = new Set<string>();
  for (let i = 0; i < length; i++) {
    const [minimum, maximum] = [columns.minimum[i]!, columns.maximum[i]!];
    const from = columns.from[i]!;
    const key = `${columns.device[i]} ${columns.metric[i]} ${from}`;
    assert.ok(!seen.has(key), 'one summary per device, metric and interval');
    seen.add(key);
    assert.ok(columns.device[i]! < devices.length && columns.metric[i]! < metrics.length);
    assert.ok(Number.isSafeInteger(from / batch.intervalMs) && from >= 0 && from < 2 ** 43);
    assert.ok(Number.isFinite(minimum) && Number.isFinite(maximum));
    assert.ok(columns.mean[i]! >= minimum && columns.mean[i]! <= maximum);
    assert.ok(columns.count[i]! >= 1);
  }
  checkReadings(kept);
}

function checkReadings(batch: ReadingsBatch): void {
  const { devices, metrics, shapes, rows, setAside } = batch;
  assert.ok(rows.length <= limits.batchRowsMax);
  assert.equal(new Set(devices).size, devices.length);
  for (const device of devices) assert.match(device, /^[A-Za-z0-9_.:-]{1,128}$/);
  assert.equal(new Set(metrics.map(({ name, type }) => `${type} ${name}`)).size, metrics.length);

  const { length, ...columns } = rows;
  for (const column of Object.values(columns)) assert.equal(column.length, length);
  const seen = new Set<string>();
  const valuesDue = metrics.map(() => 0);
  let last = -1;
  for (let row = 0; row < length; row++) {
    const order = rows.sequenceOffset[row]! * 65_536 + rows.element[row]!;
    assert.ok(order > last, 'rows in the order of sequence and element, each once');
    last = order;
    assert.ok(rows.sequenceOffset[row]! < batch.count);
    assert.ok(rows.kind[row]! < 4);
    assert.ok(rows.flags[row]! <= 1);
    assert.ok(rows.device[row]! < devices.length);
    assert.ok(Number.isFinite(rows.at[row]) && Number.isFinite(rows.receivedAt[row]));
    for (const metric of shapes[rows.shape[row]!]!) {
      valuesDue[metric]!++;
      const key = `${row} ${metrics[metric]!.name}`;
      assert.ok(!seen.has(key), 'one value per row and metric');
      seen.add(key);
    }
  }
  for (const [index, { name, type, values }] of metrics.entries()) {
    assert.equal(values.length, valuesDue[index]);
    assert.ok(name.isWellFormed() && Buffer.byteLength(name) <= limits.metricNameBytesMax);
    for (const value of values) {
      if (type === 'number') assert.equal(typeof value, 'number');
      else if (type === 'boolean') assert.ok(value === 0 || value === 1);
      else {
        assert.ok(typeof value === 'string' && value.isWellFormed());
        assert.ok(Buffer.byteLength(value) <= limits.stringValueBytesMax);
      }
    }
  }
  for (const { sequenceOffset, reason, topic, receivedAt, payloadBytes, payload } of setAside) {
    assert.ok(Number.isInteger(sequenceOffset) && sequenceOffset >= 0 && sequenceOffset < batch.count);
    assert.ok(reason.isWellFormed() && topic.isWellFormed());
    assert.ok(Number.isFinite(receivedAt));
    assert.ok(payload instanceof Uint8Array && payload.length <= limits.quarantinedPayloadBytesMax);
    assert.ok(Number.isInteger(payloadBytes) && payloadBytes >= payload.length);
  }
}
