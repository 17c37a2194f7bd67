/** The decoder against bytes that no encoder wrote: it never throws, stays in its bounds and returns no broken batch. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { constants, crc32, deflateRawSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { pack } from 'msgpackr';
import { decodeBatch, encodeBatch, encodeHeartbeat, WIRE_VERSION } from '../../protocol/batch-codec.ts';
import { batchBounds } from '../../protocol/batch-rules.ts';
import { BitWriter } from '../../protocol/bit-stream.ts';
import { boundHeartbeat, type Heartbeat, heartbeatIn } from '../../protocol/heartbeat.ts';
import { limits } from '../../protocol/limits.ts';
import { checkBatch } from './check-batch.ts';
import { anyBatch, batchOfMessages, SAMPLE_LOG_ID, thinnedAround } from './sample-batches.ts';

const HEADER_BYTES = 37;

/** Puts the right checksum on changed bytes: what a hostile gateway would send. */
function seal(bytes: Buffer): Buffer {
  bytes.writeUInt32LE(crc32(bytes.subarray(5), crc32(bytes.subarray(0, 1))), 1);
  return bytes;
}

/** A whole batch around any body. */
function sealedBody(
  body: Uint8Array,
  { compression = 0, inflatedBytes = body.length, settlement = 0, count = 4 } = {},
): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header[0] = WIRE_VERSION;
  header[5] = compression;
  header[6] = settlement;
  header.write(SAMPLE_LOG_ID, 7, 'hex');
  header.writeUIntLE(1000, 23, 6);
  header.writeUInt32LE(count, 29);
  header.writeUInt32LE(inflatedBytes, 33);
  return seal(Buffer.concat([header, body]));
}

function assertHarmless(bytes: Uint8Array): void {
  const result = decodeBatch(bytes);
  if (result.outcome === 'batch') checkBatch(result.batch);
  else if (result.outcome === 'poison') assert.ok(result.count >= 1 && result.reason.length > 0);
}

function assertPoison(bytes: Uint8Array, reason: RegExp): void {
  const result = decodeBatch(bytes);
  assert.equal(result.outcome, 'poison');
  assert.match((result as { reason: string }).reason, reason);
  const { logId, firstSequence, count } = result as { logId: string; firstSequence: number; count: number };
  assert.deepEqual({ logId, firstSequence, count }, { logId: SAMPLE_LOG_ID, firstSequence: 1000, count: 4 });
}

const sample = batchOfMessages(
  Array.from({ length: 24 }, (_, i) => ({
    device: `dev-${i % 5}`,
    receivedAt: 1_700_000_000_000 + i * 250,
    elements: [
      {
        ts: 1_700_000_000_000 + i * 251,
        values: new Map<string, number | string | boolean>([
          ['temperature', 21 + Math.round(100 * Math.sin(i)) / 100],
          ['noise', Math.sin(i)],
          ['state', i % 3 === 0 ? 'on' : 'off'],
          [i % 2 ? 'door' : 'window', i % 4 === 0],
        ]),
      },
    ],
  })),
  [
    {
      sequenceOffset: 3,
      reason: 'not JSON',
      topic: 'x',
      receivedAt: 5,
      payloadBytes: 3,
      payload: Uint8Array.of(1, 2, 3),
    },
  ],
);

const thinnedSample = thinnedAround(
  sample,
  Array.from({ length: 24 }, (_, i) => ({
    device: `dev-${i % 5}`,
    metric: i % 2 ? 'temperature' : 'noise',
    from: 1_700_000_040_000 + Math.floor(i / 10) * 60_000,
    minimum: 20 + i / 10,
    maximum: 21 + i / 7,
    mean: 20.5 + i / 10,
    count: 60 + (i % 3),
  })),
  { receivedFrom: 1_700_000_000_000, receivedTo: 1_700_000_300_000, count: 2 ** 30 },
);

test('random bytes are harmless', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), bytes => assertHarmless(bytes)),
    { numRuns: 2000 },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(3), fc.nat(3), (body, compression, settlement) =>
      assertHarmless(sealedBody(body, { compression, settlement })),
    ),
    { numRuns: 2000 },
  );
});

for (const batch of [sample, thinnedSample]) {
  const { settlement } = batch;

  test(`every truncation of a ${settlement} batch is found corrupt`, () => {
    const bytes = encodeBatch(batch);
    for (let length = 0; length < bytes.length; length++) {
      assert.equal(decodeBatch(bytes.subarray(0, length)).outcome, 'corrupt', `${length} bytes`);
    }
  });

  test(`every flipped bit of a ${settlement} batch is found corrupt`, () => {
    const bytes = encodeBatch(batch);
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      assert.equal(decodeBatch(bytes).outcome, 'corrupt', `bit ${bit}`);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
    }
    assert.deepStrictEqual(decodeBatch(bytes), { outcome: 'batch', batch });
  });

  test(`every flipped bit and truncation of a ${settlement} batch under a right checksum is harmless`, () => {
    const bytes = encodeBatch(batch, { compression: 'none' });
    for (let bit = 5 * 8; bit < bytes.length * 8; bit++) {
      const changed = Buffer.from(bytes);
      changed[bit >> 3]! ^= 1 << (bit & 7);
      assertHarmless(seal(changed));
    }
    for (let length = HEADER_BYTES; length < bytes.length; length++) {
      assertHarmless(sealedBody(bytes.subarray(HEADER_BYTES, length), { settlement: bytes[6]! }));
    }
  });
}

test('any change of any batch under a right checksum is harmless', () => {
  const change = fc.tuple(fc.nat(), fc.nat(255));
  fc.assert(
    fc.property(anyBatch, fc.array(change, { minLength: 1, maxLength: 6 }), (batch, changes) => {
      const bytes = encodeBatch(batch, { compression: 'none' });
      for (const [at, value] of changes) bytes[5 + (at % (bytes.length - 5))] = value;
      assertHarmless(seal(bytes));
    }),
    { numRuns: 1500 },
  );
});

test('a version not known is refused, not poisoned', () => {
  const bytes = encodeBatch(sample);
  bytes[0] = 2;
  assert.deepEqual(decodeBatch(seal(bytes)), { outcome: 'unknown-version', version: 2 });
});

test('an impossible header is corrupt', () => {
  assert.equal(decodeBatch(sealedBody(Buffer.alloc(8), { settlement: 3 })).outcome, 'corrupt');
  assert.equal(decodeBatch(sealedBody(Buffer.alloc(8), { count: 0 })).outcome, 'corrupt');
  assert.equal(
    decodeBatch(sealedBody(Buffer.alloc(8), { count: limits.batchMessagesMax + 1 })).outcome,
    'corrupt',
  );
});

test('a body that inflates to more, or less, than the header states is poison, found in bounded memory', () => {
  const zeros = Buffer.alloc(64 * 1024 * 1024);
  const checksum = { params: { [constants.ZSTD_c_checksumFlag]: 1 } };
  for (const [compression, packed] of [
    [1, deflateRawSync(zeros)],
    [2, zstdCompressSync(zeros, checksum)],
  ] as const) {
    for (const inflatedBytes of [0, 1, 1000, limits.batchInflatedBytesMax, zeros.length, 2 ** 32 - 1]) {
      const before = process.memoryUsage().arrayBuffers + process.memoryUsage().external;
      assertPoison(sealedBody(packed, { compression, inflatedBytes }), /does not inflate/);
      const after = process.memoryUsage().arrayBuffers + process.memoryUsage().external;
      assert.ok(after - before < 4 * limits.batchInflatedBytesMax, `${after - before} bytes`);
    }
  }
});

test('msgpack that is more than plain arrays, strings, numbers and bytes is poison', () => {
  const nested = Buffer.concat([Buffer.alloc(100_000, 0x91), Buffer.of(0)]);
  const bodies: Buffer[] = [
    pack({ a: 1 }),
    pack([new Date(), [], [], [], Buffer.alloc(0)]),
    Buffer.of(0xd4, 0x72, 0x40, 0x91, 0xa1, 0x61, 0x01), // a record definition
    Buffer.of(0x95, 0xc0, 0x90, 0x90, 0x90, 0xc4, 0x00), // null
    Buffer.of(0xdd, 0xff, 0xff, 0xff, 0xff), // an array of four thousand million items
    Buffer.of(0x95, 0x91, 0xa1, 0xff, 0x90, 0x90, 0x90, 0xc4, 0x00), // a string that is not UTF-8
    nested,
  ];
  for (const body of bodies) {
    assertPoison(sealedBody(body), /five parts/);
    assertPoison(sealedBody(body, { settlement: 2 }), /five parts/);
  }
});

/** A body whose columns are written by hand. */
function bodyOf(
  write: (out: BitWriter) => void,
  { names = [''], metrics = ['m'] }: { names?: string[]; metrics?: string[] } = {},
): Buffer {
  const out = new BitWriter();
  write(out);
  return pack([names, metrics, [], [], Buffer.from(out.finish())]);
}

function writeConstant(out: BitWriter, value: number): void {
  out.write(0, 2);
  out.write(0, 3);
  out.writeSigned(value);
}

test('counts beyond the limits are poison before room is made for them', () => {
  for (const counts of [
    [limits.batchRowsMax + 1, 1, 1],
    [1, batchBounds.devicesMax + 1, 1],
    [1, 1, batchBounds.shapesMax + 1],
    [2 ** 53, 1, 1],
  ]) {
    const body = bodyOf(out => {
      for (const count of counts) out.writeCount(count);
    });
    assertPoison(sealedBody(body), /a count of/);
  }
  // 16,384 rows of one shape with 256 metrics would be four million readings from a hundred bytes.
  const bomb = bodyOf(
    out => {
      for (const count of [limits.batchRowsMax, 1, 1]) out.writeCount(count);
      writeConstant(out, 256);
      out.write(1, 2); // shape members: 0, 1, 2 … as a constant step of 1
      out.writeSigned(0);
      out.write(0, 3);
      out.writeSigned(1);
      writeConstant(out, 0); // types
      for (const value of [0, 1, 1]) writeConstant(out, value); // the name: prefix 0, one digit, 1
      out.write(0, 1);
      for (let column = 0; column < 6; column++) writeConstant(out, 0);
      out.write(1, 1); // receivedAt: decimals of scale 0, no ulps, no exceptions
      out.write(0, 4);
      writeConstant(out, 0);
      out.write(0, 2);
      out.write(1, 1); // at: its distance from receivedAt
      writeConstant(out, 0);
    },
    { metrics: Array.from({ length: 256 }, (_, i) => `m${i}`) },
  );
  assertPoison(sealedBody(bomb), /more readings than a batch can hold/);
});

test('a thinned body beyond the limits is poison before room is made for it', () => {
  const body = (
    write: (out: BitWriter) => void,
    { interval = 0 as unknown, metrics = ['m'] } = {},
  ): Buffer => {
    const out = new BitWriter();
    write(out);
    return sealedBody(pack([interval, [''], metrics, Buffer.from(out.finish()), Buffer.alloc(0)]), {
      settlement: 2,
    });
  };
  /** No devices, times that are 0, then how many summaries each metric has. */
  const lengths = (each: number) => (out: BitWriter) => {
    out.writeCount(0);
    out.write(0, 1);
    out.write(1, 1);
    out.write(0, 4);
    writeConstant(out, 0);
    out.write(0, 2);
    writeConstant(out, each);
  };
  for (const interval of [4, -1, 0.5, 'length', 'constructor']) {
    assertPoison(body(lengths(0), { interval }), /interval/);
  }
  assertPoison(
    body(out => out.writeCount(batchBounds.devicesMax + 1)),
    /a count of/,
  );
  assertPoison(body(lengths(batchBounds.summariesMax + 1)), /out of range/);
  assertPoison(body(lengths(2 ** 40)), /out of range/);
  // 64,000 summaries for each of 1,000 metrics would be 64 million from a few thousand bytes.
  const metrics = Array.from({ length: 1000 }, (_, i) => `m${i}`);
  assertPoison(body(lengths(64_000), { metrics }), /too many summaries/);
  // As many as there may be, of which none is there.
  assertPoison(body(lengths(batchBounds.summariesMax)), /too soon/);
});

test('a kept body of a thinned batch is held to the bounds of any other', () => {
  const thinnedBody = (kept: Buffer): Buffer => {
    const bare = new BitWriter();
    bare.writeCount(0);
    bare.write(0, 1);
    bare.write(1, 1);
    bare.write(0, 4);
    writeConstant(bare, 0);
    bare.write(0, 2);
    return sealedBody(pack([0, [], [], Buffer.from(bare.finish()), kept]), { settlement: 2 });
  };
  assertPoison(thinnedBody(Buffer.alloc(0)), /five parts/);
  assertPoison(thinnedBody(bodyOf(out => out.writeCount(limits.batchRowsMax + 1))), /a count of/);
  const empty = bodyOf(
    out => {
      for (let count = 0; count < 3; count++) out.writeCount(0);
      out.write(0, 1);
    },
    { names: [], metrics: [] },
  );
  assert.equal(decodeBatch(thinnedBody(empty)).outcome, 'batch');
});

test('an all-zero body of every size up to a page is harmless', () => {
  for (let size = 1; size < 4096; size += 37) {
    assertHarmless(sealedBody(pack([['d'], ['m'], [], [], Buffer.alloc(size)])));
    assertHarmless(sealedBody(pack([['d'], ['m'], [['s']], [], Buffer.alloc(size, 0xff)])));
    for (const fill of [0, 0xff]) {
      const kept = pack([['d'], ['m'], [], [], Buffer.alloc(size, fill)]);
      const body = pack([fill & 1, ['d'], ['m', 'n'], Buffer.alloc(size, fill), kept]);
      assertHarmless(sealedBody(body, { settlement: 2 }));
    }
  }
});

const heartbeat: Heartbeat = {
  settlement: 'heartbeat',
  logId: SAMPLE_LOG_ID,
  at: 1_700_000_000_000.5,
  completeUntil: 1_699_999_999_000,
  hearingSince: 1_699_990_000_000,
  coversSite: true,
};

test('a heartbeat is read as it was written', () => {
  for (const one of [
    heartbeat,
    { ...heartbeat, hearingSince: null, coversSite: false },
    { ...heartbeat, completeUntil: 0 },
    { ...heartbeat, streamCreated: '2026-01-15T12:00:00.123456789Z' },
    { ...heartbeat, streamCreated: 'ä'.repeat(32) },
  ]) {
    assert.deepEqual(decodeBatch(encodeHeartbeat(one)), { outcome: 'heartbeat', heartbeat: one });
  }
});

test('every flipped bit and truncation of a heartbeat is found corrupt', () => {
  const bytes = encodeHeartbeat(heartbeat);
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const damaged = Buffer.from(bytes);
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    assert.equal(decodeBatch(damaged).outcome, 'corrupt', `bit ${bit}`);
  }
  for (let length = 0; length < bytes.length; length++) {
    assert.equal(decodeBatch(bytes.subarray(0, length)).outcome, 'corrupt', `${length} bytes`);
  }
});

test('a sealed heartbeat that makes no sense settles nothing', () => {
  const good = encodeHeartbeat(heartbeat);
  const changed = (change: (bytes: Buffer) => void) => {
    const bytes = Buffer.from(good);
    change(bytes);
    return seal(bytes);
  };
  const withBody = (body: Uint8Array) => {
    const bytes = Buffer.concat([good.subarray(0, HEADER_BYTES), body]);
    bytes.writeUInt32LE(body.length, 33);
    return seal(bytes);
  };
  const hostile = [
    changed(bytes => bytes.writeUInt32LE(1, 29)),
    changed(bytes => bytes.writeUIntLE(7, 23, 6)),
    changed(bytes => bytes.writeUInt8(2, 5)),
    changed(bytes => bytes.writeUInt32LE(9, 33)),
    withBody(pack([5, 6, -1, 0])),
    withBody(pack([5, 4, 6, 0])),
    withBody(pack([5, 4, 3, 2])),
    withBody(pack([5, 4, -2, 1])),
    withBody(pack([Number.NaN, 4, 3, 1])),
    withBody(pack([2 ** 60, 4, 3, 1])),
    withBody(pack([5, 4, 3])),
    withBody(pack([5, 4, 3, 1, 1])),
    withBody(pack(['5', 4, 3, 1])),
    withBody(pack({ at: 5 })),
    withBody(new Uint8Array(2000)),
    withBody(new Uint8Array(0)),
  ];
  for (const [index, bytes] of hostile.entries()) {
    assert.equal(decodeBatch(bytes).outcome, 'corrupt', `case ${index}`);
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 70 }), body => {
      assert.ok(['corrupt', 'heartbeat'].includes(decodeBatch(withBody(body)).outcome));
    }),
    { numRuns: 2000 },
  );
});

test('a clock that runs ahead is moved back as a whole', () => {
  assert.equal(boundHeartbeat(heartbeat, heartbeat.at - limits.futureToleranceMs), heartbeat);
  const now = heartbeat.at - 3_600_000;
  const bounded = boundHeartbeat(heartbeat, now);
  assert.equal(bounded.at, now);
  assert.equal(bounded.at - bounded.completeUntil, heartbeat.at - heartbeat.completeUntil);
  assert.equal(bounded.at - bounded.hearingSince!, heartbeat.at - heartbeat.hearingSince!);
});

test('a heartbeat is complete in nothing of another stream than it is about', () => {
  const about = { ...heartbeat, streamCreated: 'one' };
  assert.equal(heartbeatIn(about, 'one'), about);
  assert.deepEqual(heartbeatIn(about, 'another'), { ...about, completeUntil: 0 });
  assert.equal(heartbeatIn(heartbeat, 'any'), heartbeat, 'of a gateway that does not say');
});
