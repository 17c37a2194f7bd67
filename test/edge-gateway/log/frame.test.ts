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
import {
  CONTENT_TYPE_BYTES_MAX,
  keepProperties,
  type MessageProperties,
  PROPERTIES_BYTES_MAX,
  propertiesBytesAtMost,
  USER_PROPERTIES_BYTES_MAX,
} from '../../../edge-gateway/log/frame-properties.ts';
import { newLogId } from '../../../protocol/ids.ts';
import { limits } from '../../../protocol/limits.ts';

const salt = saltOf(newLogId(1));
const text = fc.string({ unit: 'grapheme', maxLength: 30 });
const properties = fc.record(
  {
    contentType: text,
    userProperties: fc.array(fc.tuple(text, text), { maxLength: 5 }),
    userPropertiesLeftOut: fc.constant(true as const),
    messageExpirySeconds: fc.nat(2 ** 32 - 1),
  },
  { requiredKeys: [], noNullPrototype: true },
);
const plainMessages = fc.record({
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
const messages: fc.Arbitrary<Message> = fc.oneof(
  plainMessages,
  fc.tuple(plainMessages, properties).map(([message, beside]) => ({ ...message, properties: beside })),
);

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
        assert.equal(checkFrame(buffer, view, offset, end, sequence, sequence + 1, salt), 'right');
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

test('a frame without properties is as long as its header, topic and payload', () => {
  fc.assert(
    fc.property(plainMessages, message => {
      const { end } = encode(message, 1);
      assert.equal(end, 40 + Buffer.byteLength(message.topic) + message.payload.length);
    }),
  );
});

test('properties are kept as MQTT 5 gives them, within their bounds (F)', () => {
  assert.equal(keepProperties({}), undefined);
  const userProperties = Object.assign(Object.create(null), { a: ['1', '2'], ['__proto__']: 'x' });
  assert.deepEqual(keepProperties({ contentType: 'text/plain', userProperties, messageExpiryInterval: 60 }), {
    contentType: 'text/plain',
    userProperties: [
      ['a', '1'],
      ['a', '2'],
      ['__proto__', 'x'],
    ],
    messageExpirySeconds: 60,
  });
  const fits = { a: 'x'.repeat(USER_PROPERTIES_BYTES_MAX - 5) };
  assert.deepEqual(keepProperties({ userProperties: fits }), { userProperties: [['a', fits.a]] });
  assert.deepEqual(keepProperties({ userProperties: { a: `${fits.a}x` }, messageExpiryInterval: 1 }), {
    userPropertiesLeftOut: true,
    messageExpirySeconds: 1,
  });
});

test('whatever a packet says beside its payload, what is kept of it fits a frame', () => {
  const long = fc.string({ unit: 'binary', maxLength: 3000 });
  const packets = fc.record({
    contentType: fc.option(long, { nil: undefined }),
    userProperties: fc.option(
      fc.dictionary(long, fc.oneof(long, fc.array(long, { maxLength: 3 })), { maxKeys: 3 }),
      {
        nil: undefined,
      },
    ),
    messageExpiryInterval: fc.option(fc.nat(2 ** 32 - 1), { nil: undefined }),
  });
  fc.assert(
    fc.property(packets, packet => {
      const kept: MessageProperties | undefined = keepProperties(packet);
      const message = {
        ...{ receivedAt: 1, monotonicMs: 1, qos: 0, retain: false, duplicate: false, packetId: 0 },
        ...{ topic: 't', payload: Buffer.from('p'), payloadBytes: 1 },
        ...(kept && { properties: kept }),
      } as Message;
      const { buffer, view, end } = encode(message, 1);
      assert.ok(end <= frameBytesAtMost(message));
      if (!kept) return;
      assert.ok(end - 42 <= PROPERTIES_BYTES_MAX && end - 42 <= propertiesBytesAtMost(kept));
      assert.ok(Buffer.byteLength(kept.contentType ?? '') <= CONTENT_TYPE_BYTES_MAX);
      const frame = decodeFrame(buffer, view, 0);
      assert.equal(Buffer.from(frame.payload).toString(), 'p');
      assert.equal(frame.properties?.userProperties?.length, kept.userProperties?.length);
    }),
    { numRuns: 200 },
  );
});
