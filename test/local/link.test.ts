/** The link that can fail: what it does to time as a pure schedule, and to bytes on real sockets. */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { type Link, openLink, UNDER_WAY_BYTES_MAX } from '../../deploy/local/link.ts';
import { FAIR, FREE_LINE, sendSegment, type Weather, weatherFault } from '../../deploy/local/link-weather.ts';

/** When each of `segments` comes out that are all handed over at 0, and in order. */
function schedule(weather: Partial<Weather>, segments: number, random: () => number = () => 0.999): number[] {
  let line = FREE_LINE;
  let previousMs = Number.NEGATIVE_INFINITY;
  return Array.from({ length: segments }, () => {
    const sent = sendSegment(line, { ...FAIR, ...weather }, { bytes: 1000, nowMs: 0, previousMs }, random);
    line = sent.line;
    previousMs = sent.outMs;
    return sent.outMs;
  });
}

test('in fair weather nothing waits; a delay moves all, a rate spreads them', () => {
  assert.deepEqual(schedule({}, 3), [0, 0, 0]);
  assert.deepEqual(schedule({ delayMs: 40 }, 3), [40, 40, 40]);
  assert.deepEqual(schedule({ bytesPerSecond: 10_000 }, 3), [100, 200, 300]);
  assert.deepEqual(schedule({ bytesPerSecond: 10_000, delayMs: 40 }, 3), [140, 240, 340]);
});

test('a lost segment is held for a retransmission timeout, twice as long when lost again, and all behind it wait', () => {
  const draws = [0.5, 0.05, 0.5, 0.5];
  assert.deepEqual(
    schedule({ lossRate: 0.1 }, 3, () => draws.shift()!),
    [0, 200, 200],
  );
  const twice = [0.05, 0.05, 0.5, 0.5];
  assert.deepEqual(
    schedule({ lossRate: 0.1 }, 2, () => twice.shift()!),
    [600, 600],
  );
});

test('whatever the weather: in order, never early, and the line is paid for every byte', () => {
  const weather = fc.record({
    delayMs: fc.integer({ min: 0, max: 500 }),
    jitterMs: fc.integer({ min: 0, max: 500 }),
    lossRate: fc.double({ min: 0, max: 0.5, noNaN: true }),
    bytesPerSecond: fc.integer({ min: 1000, max: 1_000_000 }),
  });
  const randoms = fc.infiniteStream(fc.double({ min: 0, max: 0.999, noNaN: true }));
  fc.assert(
    fc.property(weather, randoms, fc.integer({ min: 1, max: 50 }), (of, stream, count) => {
      assert.equal(weatherFault(of), null);
      const out = schedule(of, count, () => stream.next().value);
      out.forEach((atMs, index) => {
        assert.ok(index === 0 || atMs >= out[index - 1]!);
        const linePaidMs = (1000 * 1000 * (index + 1)) / of.bytesPerSecond;
        assert.ok(atMs >= of.delayMs + linePaidMs - 1e-6);
      });
    }),
  );
});

test('weather that cannot be is refused', async t => {
  const { link } = await line(t, () => {});
  for (const wrong of [
    { lossRate: 1 },
    { lossRate: -0.1 },
    { delayMs: -1 },
    { bytesPerSecond: Number.NaN },
  ]) {
    assert.throws(() => link.shape(wrong), RangeError);
  }
});

/** A server on loopback, and a link in front of it. */
async function line(
  t: TestContext,
  serve: (socket: Socket) => void,
  random?: () => number,
): Promise<{ link: Link; server: Server; open: () => Promise<Socket> }> {
  const server = createServer({ allowHalfOpen: true }, socket => {
    socket.on('error', () => {});
    t.after(() => socket.destroy());
    serve(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { port } = server.address() as { port: number };
  const link = await openLink({ host: '127.0.0.1', port }, random ? { random } : {});
  t.after(() => link.close());
  const open = async () => {
    const socket = connect({ port: link.port, host: '127.0.0.1', allowHalfOpen: true });
    socket.on('error', () => {});
    socket.on('end', () => socket.end());
    t.after(() => socket.destroy());
    await once(socket, 'connect');
    return socket;
  };
  return { link, server, open };
}

const hashOf = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

async function received(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

for (const [name, weather] of [
  ['fair', {}],
  ['bad', { delayMs: 5, jitterMs: 10, lossRate: 0.01, bytesPerSecond: 2_000_000 }],
] as const) {
  test(`in ${name} weather every byte comes through both ways, in order, also those under way at the end`, async t => {
    const there = randomBytes(300_000);
    const back = randomBytes(200_000);
    const heard = Promise.withResolvers<Buffer>();
    const { link, open } = await line(t, socket => {
      socket.end(back);
      heard.resolve(received(socket));
    });
    link.shape(weather);
    const socket = await open();
    socket.end(there);
    assert.equal(hashOf(await received(socket)), hashOf(back));
    assert.equal(hashOf(await heard.promise), hashOf(there));
    assert.deepEqual({ ...link.bytes }, { up: there.length, down: back.length });
    assert.equal(link.underWay, 0);
  });
}

test('weather that changes in mid-stream keeps the order', async t => {
  const sent = randomBytes(400_000);
  const heard = Promise.withResolvers<Buffer>();
  const { link, open } = await line(t, socket => heard.resolve(received(socket)));
  const socket = await open();
  link.shape({ delayMs: 30 });
  socket.write(sent.subarray(0, 100_000));
  link.shape({ bytesPerSecond: 5_000_000 });
  socket.write(sent.subarray(100_000, 200_000));
  link.shape({});
  socket.end(sent.subarray(200_000));
  assert.equal(hashOf(await heard.promise), hashOf(sent));
});

test('a slow line pushes back and holds no more than its bound (F)', async t => {
  const { link, open } = await line(t, socket => socket.resume());
  link.shape({ bytesPerSecond: 10 });
  const socket = await open();
  // Far more than the system's own buffers take.
  socket.write(Buffer.alloc(64 * 1024 * 1024));
  while (link.underWay < UNDER_WAY_BYTES_MAX) await new Promise(resolve => setImmediate(resolve));
  for (let turn = 0; turn < 50; turn++) await new Promise(resolve => setImmediate(resolve));
  // One read may go beyond it.
  assert.ok(link.underWay <= UNDER_WAY_BYTES_MAX + 64 * 1024, `${link.underWay} bytes held`);
  assert.ok(socket.writableLength > 0, 'the sender keeps the rest');
});

test('a receiver that does not read pushes back to the sender, in fair weather too (F)', async t => {
  const { link, open } = await line(t, socket => socket.pause());
  const socket = await open();
  socket.write(Buffer.alloc(64 * 1024 * 1024));
  let before = -1;
  while (before !== link.bytes.up) {
    before = link.bytes.up;
    for (let turn = 0; turn < 200; turn++) await new Promise(resolve => setImmediate(resolve));
  }
  assert.ok(link.bytes.up < 32 * 1024 * 1024, `${link.bytes.up} bytes taken from the sender`);
  assert.ok(socket.writableLength > 0);
});

test('cut ends what is open and refuses what is new, until it is healed', async t => {
  const { link, open } = await line(t, socket => socket.pipe(socket));
  const socket = await open();
  socket.write('a');
  await once(socket, 'data');
  link.cut();
  await once(socket, 'close');
  const refused = connect(link.port, '127.0.0.1').resume();
  refused.on('error', () => {});
  await once(refused, 'close');
  link.heal();
  const again = await open();
  again.write('b');
  assert.equal(String((await once(again, 'data'))[0]), 'b');
});

test('a stalled link is half-open: nothing comes through, and healing ends it', async t => {
  let heard = '';
  const { link, open } = await line(t, socket => {
    socket.on('data', chunk => {
      heard += String(chunk);
    });
    socket.write('hello');
  });
  const socket = await open();
  await once(socket, 'data');
  link.stall();
  socket.write('into the void');
  const late = await open();
  late.write('this as well');
  for (let turn = 0; turn < 100; turn++) await new Promise(resolve => setImmediate(resolve));
  assert.equal(heard, '');
  assert.ok(!socket.destroyed && !late.destroyed, 'nobody is told');
  link.heal();
  await Promise.all([once(socket, 'close'), once(late, 'close')]);
  const again = await open();
  await once(again, 'data');
});
