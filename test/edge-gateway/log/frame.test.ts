import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  checkFrame,
  decodeFrame,
  encodeFrame,
  frameBytesAtMost,
  type Message,
  saltOf,
} from '../../../edge-gateway/log/frame.ts';
import { newLogId } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';

const salt = saltOf(newLogId(1));
const messages: fc.Arbitrary<Message> = fc.record({
  receivedAt: fc.double({ noNaN: true }),
  monotonicMs: fc.double({ noNaN: true }),
  qos: fc.constantFrom(0 as const, 1 as const, 2 as const),
  retain: fc.boolean(),
  duplicate: fc.boolean(),
  packetId: fc.nat(65_535),
  topic: fc.string({ unit: 'grapheme', maxLength: 200 }),
  payload: fc.uint8Array({ maxLength: 2000 }),
  payloadBytes: fc.nat(2 ** 32 - 1),
});

function encode(message: Message, sequence: number, offset = 0) {
  const buffer = Buffer.alloc(offset + frameBytesAtMost(message));
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
  const length = encodeFrame(buffer, view, offset, message, sequence, salt);
  return { buffer, view, end: offset + length };
}

test('a frame gives back its message, at any offset and sequence', () => {
  fc.assert(
    fc.property(
      messages,
      fc.integer({ min: 1, max: 2 ** 48 - 1 }),
      fc.nat(50),
      (message, sequence, offset) => {
        const { buffer, view, end } = encode(message, sequence, offset);
        assert.equal(checkFrame(buffer, view, offset, end, sequence, sequence + 1, salt), 'frame');
        const { payload, ...rest } = decodeFrame(buffer, view, offset);
        assert.deepEqual({ ...rest, payload: new Uint8Array(payload) }, { ...message, sequence });
      },
    ),
  );
});

test('a frame of another log, another sequence, or cut short is none', () => {
  fc.assert(
    fc.property(messages, fc.integer({ min: 2, max: 1e9 }), fc.nat(), (message, sequence, cut) => {
      const { buffer, view, end } = encode(message, sequence);
      assert.equal(checkFrame(buffer, view, 0, end, sequence, sequence + 1, (salt ^ 1) >>> 0), 'bad');
      assert.equal(checkFrame(buffer, view, 0, end, sequence + 1, sequence + 9, salt), 'bad');
      assert.equal(checkFrame(buffer, view, 0, end, 1, sequence, salt), 'bad');
      assert.equal(checkFrame(buffer, view, 0, cut % end, sequence, sequence + 1, salt), 'short');
    }),
  );
});

test('what does not fit a frame is refused before it is written', () => {
  const fits = {
    receivedAt: 1,
    monotonicMs: 1,
    qos: 0,
    retain: false,
    duplicate: false,
    packetId: 0,
  } as const;
  const payload = new Uint8Array(limits.payloadBytesMax + 1);
  assert.throws(() => encode({ ...fits, topic: 't', payload, payloadBytes: payload.length }, 1), RangeError);
  const topic = 't'.repeat(65_536);
  assert.throws(() => encode({ ...fits, topic, payload: new Uint8Array(), payloadBytes: 0 }, 1), RangeError);
});
