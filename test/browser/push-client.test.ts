/** The life of the push link against a real WebSocket server that opens, closes, falls silent and comes back. */

import {
  App,
  type WebSocket as ServerSocket,
  type TemplatedApp,
  us_listen_socket_close,
  us_socket_local_port,
} from 'uWebSockets.js';
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import {
  createPushClient,
  type LinkStatus,
  type PushClientOptions,
  retryDelayMs,
} from '../../cloud/dashboard/push-client.ts';

/** What never arrives fails the test instead of holding up the run. */
const bounded = { timeout: 20_000 };

type Asked = { type: string; sites: string[]; twins: string[] };

/** Values that arrive one by one, awaited one by one. */
function inbox<T>() {
  const waiting: Array<(value: T) => void> = [];
  const held: T[] = [];
  return {
    put(value: T): void {
      const next = waiting.shift();
      if (next === undefined) held.push(value);
      else next(value);
    },
    take(): Promise<T> {
      return held.length > 0
        ? Promise.resolve(held.shift() as T)
        : new Promise(resolve => waiting.push(resolve));
    },
    get size(): number {
      return held.length;
    },
  };
}

async function startServer(t: TestContext) {
  const messages = inbox<Asked>();
  const opened = inbox<ServerSocket<unknown>>();
  const app: TemplatedApp = App();
  const open = new Set<ServerSocket<unknown>>();
  app.ws('/push', {
    open: socket => {
      open.add(socket);
      opened.put(socket);
    },
    close: socket => void open.delete(socket),
    message: (_, data) => messages.put(JSON.parse(Buffer.from(data).toString()) as Asked),
  });
  const port = await new Promise<number>((resolve, reject) => {
    app.listen('127.0.0.1', 0, socket => {
      if (!socket) return reject(new Error('no port'));
      t.after(() => {
        for (const each of open) each.close();
        us_listen_socket_close(socket);
      });
      resolve(us_socket_local_port(socket));
    });
  });
  return { url: `ws://127.0.0.1:${port}/push`, messages, opened };
}

function startClient(t: TestContext, url: string, options: Partial<PushClientOptions> = {}) {
  const statuses = inbox<LinkStatus>();
  const frames = inbox<string>();
  const client = createPushClient({
    url,
    onStatus: status => statuses.put(status),
    onFrame: text => frames.put(text),
    delayFor: () => 5,
    ...options,
  });
  t.after(() => client.stop());
  const reach = async <P extends LinkStatus['phase']>(
    phase: P,
  ): Promise<Extract<LinkStatus, { phase: P }>> => {
    for (;;) {
      const status = await statuses.take();
      if (status.phase === phase) return status as Extract<LinkStatus, { phase: P }>;
    }
  };
  return { client, reach, frames };
}

test('what is wanted is asked for at every opening, and only the difference in between', bounded, async t => {
  const { url, messages, opened } = await startServer(t);
  const { client, reach, frames } = startClient(t, url);
  client.want({ sites: ['demo'], twins: [] });
  client.start();
  const first = await opened.take();
  assert.deepEqual(await messages.take(), { type: 'subscribe', sites: ['demo'], twins: [] });
  first.send('{"type":"update"}');
  assert.equal(await frames.take(), '{"type":"update"}');

  client.want({ sites: ['demo', 'plant'], twins: [] });
  assert.deepEqual(await messages.take(), { type: 'subscribe', sites: ['plant'], twins: [] });
  client.want({ sites: [], twins: ['demo/a'] });
  assert.deepEqual(await messages.take(), { type: 'unsubscribe', sites: ['demo', 'plant'], twins: [] });
  assert.deepEqual(await messages.take(), { type: 'subscribe', sites: [], twins: ['demo/a'] });

  await reach('open');
  first.end(1013, 'the server is stopping');
  const cut = await reach('waiting');
  assert.equal(cut.reason, 'the server is stopping');
  assert.equal(cut.attempt, 0);
  await opened.take();
  assert.deepEqual(await messages.take(), { type: 'subscribe', sites: [], twins: ['demo/a'] });
  await reach('open');
});

test(
  'a server that hangs up: attempts grow, the time of the cut stays, retryNow ends the wait',
  bounded,
  async t => {
    const refusing = createServer(socket => void socket.destroy()).listen(0, '127.0.0.1');
    await once(refusing, 'listening');
    t.after(() => refusing.close());
    const { port } = refusing.address() as { port: number };
    const delays: number[] = [];
    const { client, reach } = startClient(t, `ws://127.0.0.1:${port}/push`, {
      delayFor: attempt => {
        delays.push(attempt);
        return attempt < 3 ? 1 : 3_600_000;
      },
    });
    client.start();
    const first = await reach('waiting');
    await reach('waiting');
    const third = await reach('waiting');
    assert.equal(third.downSince, first.downSince);
    assert.deepEqual(delays, [1, 2, 3]);
    client.retryNow();
    assert.equal((await reach('connecting')).attempt, 3);
  },
);

test('a connection that accepts and says nothing is given up', bounded, async t => {
  const sockets = new Set<Socket>();
  const silent = createServer(socket => void sockets.add(socket)).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    silent.close();
  });
  const { port } = silent.address() as { port: number };
  const { client, reach } = startClient(t, `ws://127.0.0.1:${port}/push`, { connectTimeoutMs: 30 });
  client.start();
  assert.equal((await reach('waiting')).reason, 'no answer from the server');
});

test('silence is asked about once and then taken for a dead link', bounded, async t => {
  const { url, messages } = await startServer(t);
  const { client, reach } = startClient(t, url, { silenceMs: 40, delayFor: () => 3_600_000 });
  client.start();
  await reach('open');
  assert.equal((await messages.take()).type, 'ping');
  assert.equal((await reach('waiting')).reason, 'the server fell silent');
});

test('any frame answers the ping', bounded, async t => {
  const { url, messages, opened } = await startServer(t);
  const { client, reach, frames } = startClient(t, url, { silenceMs: 1000, delayFor: () => 3_600_000 });
  client.start();
  await reach('open');
  const socket = await opened.take();
  for (let pings = 0; pings < 4; pings += 1) {
    assert.equal((await messages.take()).type, 'ping');
    socket.send('{"type":"error","code":"bad-message"}');
    await frames.take();
  }
  client.stop();
  await reach('stopped');
});

test(
  'a gap asks for the twin once, releases it when it came, and for the site when there are many',
  bounded,
  async t => {
    const { url, messages } = await startServer(t);
    const { client, reach } = startClient(t, url);
    client.want({ sites: ['demo'], twins: [] });
    client.start();
    await reach('open');
    await messages.take();

    client.resync(['demo/a', 'elsewhere/b']);
    client.resync(['demo/a']);
    assert.deepEqual(await messages.take(), { type: 'subscribe', sites: [], twins: ['demo/a'] });
    client.arrived('demo/a');
    client.arrived('demo/a');
    assert.deepEqual(await messages.take(), { type: 'unsubscribe', sites: [], twins: ['demo/a'] });

    const many = Array.from({ length: 200 }, (_, index) => `demo/d${index}`);
    client.resync(many);
    client.resync(many);
    client.askAgain({ sites: ['demo', 'unwanted'], twins: [] });
    assert.deepEqual(await messages.take(), { type: 'subscribe', sites: ['demo'], twins: [] });
    assert.deepEqual(
      await messages.take(),
      { type: 'subscribe', sites: ['demo'], twins: [] },
      'that of askAgain',
    );
    assert.equal(messages.size, 0);
  },
);

test('retry delays: jittered below a doubling ceiling', () => {
  assert.equal(retryDelayMs(0, 0), 300);
  assert.equal(retryDelayMs(0, 1), 600);
  assert.equal(retryDelayMs(3, 1), 4_800);
  assert.equal(retryDelayMs(1_000, 1), 15_000);
  assert.equal(retryDelayMs(1_000, 0), 300);
});
