import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Unusable } from '../../../edge-gateway/mapping/decoded.ts';
import { deviceFromId, deviceFromPath } from '../../../edge-gateway/mapping/device-name.ts';
import { localToUtc } from '../../../edge-gateway/mapping/local-time.ts';
import { isDeviceId } from '../../../protocol/ids.ts';

test('the documented names', () => {
  const paths = {
    lamp: 'lamp',
    'kitchen/floor_light': 'kitchen:floor_light',
    'Living Room/Lamp 1': 'Living:_Room:Lamp:_1',
    'a:b': 'a:-3Ab',
    'a/_b': 'a::-5Fb',
    'a/-b': 'a::-2Db',
    Büro: 'B:-C3:-BCro',
  };
  for (const [path, device] of Object.entries(paths)) assert.equal(deviceFromPath(path), device, path);
  const ids = { 'urn:dev:ow:10': 'urn:dev:ow:10', 'a:-b': 'a:-3A-b', 'a/b': 'a:-2Fb', 'a b': 'a:-20b' };
  for (const [id, device] of Object.entries(ids)) assert.equal(deviceFromId(id), device, id);
  for (const bad of ['', 'x'.repeat(129), 'ü'.repeat(30)]) {
    assert.throws(() => deviceFromPath(bad), Unusable);
    assert.throws(() => deviceFromId(bad), Unusable);
  }
});

/** Reads a name back, by what the documentation says. */
function pathOf(device: string): string {
  const bytes: number[] = [];
  for (let i = 0; i < device.length; i++) {
    if (device.startsWith(':-', i)) {
      bytes.push(Number.parseInt(device.slice(i + 2, i + 4), 16));
      i += 3;
    } else if (device.startsWith(':_', i)) {
      bytes.push(0x20);
      i++;
    } else bytes.push(device[i] === ':' ? 0x2f : device.charCodeAt(i));
  }
  return Buffer.from(bytes).toString();
}
const idOf = (device: string) =>
  Buffer.from(
    device.replace(/:-([0-9A-F]{2})/g, (_, byte: string) => String.fromCharCode(Number.parseInt(byte, 16))),
    'latin1',
  ).toString();

test('two names never become one: each can be read back', () => {
  const names = fc.oneof(
    fc.string({ unit: fc.constantFrom(...'/:-_ .aA1ü'), minLength: 1, maxLength: 12 }),
    // At most 128 characters of a name, as 8 × 4 bytes.
    fc.string({ unit: 'binary', minLength: 1, maxLength: 8 }),
  );
  fc.assert(
    fc.property(names, name => {
      const device = deviceFromPath(name);
      assert.ok(isDeviceId(device));
      assert.equal(pathOf(device), name);
      const id = deviceFromId(name);
      assert.ok(isDeviceId(id));
      assert.equal(idOf(id), name);
    }),
    { numRuns: 3000 },
  );
});

test('local times: winter, summer, the hour that comes twice and the one that does not come', () => {
  const utc = (text: string) => new Date(localToUtc(Date.parse(`${text}Z`), 'Europe/Berlin')).toISOString();
  assert.equal(utc('2024-01-15T12:00:00'), '2024-01-15T11:00:00.000Z');
  assert.equal(utc('2024-07-15T12:00:00'), '2024-07-15T10:00:00.000Z');
  assert.equal(utc('2024-10-27T02:30:00'), '2024-10-27T00:30:00.000Z');
  assert.equal(utc('2024-10-27T01:59:59'), '2024-10-26T23:59:59.000Z');
  assert.equal(utc('2024-10-27T03:00:00'), '2024-10-27T02:00:00.000Z');
  assert.equal(utc('2024-03-31T01:59:59'), '2024-03-31T00:59:59.000Z');
  assert.equal(utc('2024-03-31T02:30:00'), '2024-03-31T01:30:00.000Z');
  assert.equal(utc('2024-03-31T03:00:00'), '2024-03-31T01:00:00.000Z');
});
