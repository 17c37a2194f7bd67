/** What becomes of a part of a large answer when the client takes it, is slow, stands still, or goes away. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Client, pour } from '../../../cloud/api/stream.ts';

const PART = Buffer.from(Array.from({ length: 10_000 }, (_, i) => i % 251));

/** @param answers of the socket to each write: whether it has room @param waits what each wait ends with */
function scene(answers: readonly boolean[], waits: readonly ('takes' | 'still' | 'gone')[]) {
  const written: number[] = [];
  const lengths: number[] = [];
  let isGone = false;
  let waited = 0;
  const client: Client = {
    isGone: () => isGone,
    async takes() {
      const how = waits[waited++];
      assert.ok(how, 'no more waiting');
      isGone = how === 'gone';
      return how === 'takes';
    },
  };
  const write = (bytes: Uint8Array) => {
    written.push(...bytes);
    lengths.push(bytes.length);
    return answers[lengths.length - 1] ?? true;
  };
  return { client, write, lengths, written, waited: () => waited };
}

test('a client that takes it all is not waited for', async () => {
  const { client, write, written, waited } = scene([], []);
  assert.equal(await pour(PART, write, client), true);
  assert.deepEqual(written, [...PART]);
  assert.equal(waited(), 0);
});

test('a slow client gets a byte at a time until the socket has room, and then the rest', async () => {
  const { client, write, written, lengths } = scene([false, false, false, true], ['takes', 'still', 'takes']);
  assert.equal(await pour(PART, write, client), true);
  assert.deepEqual(written, [...PART]);
  assert.deepEqual(lengths.slice(1, 4), [1, 1, 1]);
  assert.equal(lengths.length, 5);
});

test('a client that has gone is not written to any more', async () => {
  const { client, write, lengths } = scene([false], ['gone']);
  assert.equal(await pour(PART, write, client), false);
  assert.equal(lengths.length, 1);
});
