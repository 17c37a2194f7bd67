/** The demo's control of its links: cut and restored over HTTP, by whoever knows the token, through the cloud node or not. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { registerDemoLinks } from '../../cloud/demo-links.ts';
import { listen, newApp } from '../../cloud/web-server.ts';
import { type DemoLinks, openDemoLinks } from '../../deploy/demo/links.ts';

/** A site whose link leads to an echo server, and 5 bytes on its gateway's disk. */
async function open(t: TestContext): Promise<{ links: DemoLinks; dial: () => Socket }> {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-links-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  mkdirSync(join(directory, 'demo/gateway-1/log'), { recursive: true });
  writeFileSync(join(directory, 'demo/gateway-1/log/a'), 'bytes');
  const echo = createServer(socket => socket.on('error', () => {}).pipe(socket));
  echo.listen(0, '127.0.0.1');
  await once(echo, 'listening');
  const { port } = echo.address() as { port: number };
  t.after(() => echo.close());
  const links = await openDemoLinks(directory);
  t.after(() => links.close());
  const url = new URL(
    await links.through(`nats://u:p@127.0.0.1:${port}`, { site: 'demo', gateway: 'gateway-1' }),
  );
  assert.equal(url.username, 'u');
  return {
    links,
    dial() {
      const socket = connect(Number(url.port), '127.0.0.1');
      socket.on('error', () => {});
      t.after(() => socket.destroy());
      return socket.resume();
    },
  };
}

const post = (url: string, body: unknown, headers: Record<string, string> = {}) =>
  fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });

async function only(response: Response): Promise<{ site: string; cut: boolean; changedAt: number | null }> {
  assert.equal(response.status, 200);
  const { links } = (await response.json()) as { links: { site: string; cut: boolean; changedAt: number }[] };
  assert.equal(links.length, 1);
  return links[0]!;
}

test('a link is cut and restored, and says since when', async t => {
  const { links, dial } = await open(t);
  const url = `${links.controlUrl}/links`;
  assert.deepEqual(await only(await fetch(url)), {
    site: 'demo',
    cut: false,
    changedAt: null,
    bufferBytes: 5,
  });
  const before = dial();
  await once(before, 'connect');
  const ended = once(before, 'close');
  const pressedAt = Date.now();
  const { cut, changedAt } = await only(await post(`${url}/demo`, { cut: true }));
  assert.ok(cut && changedAt! >= pressedAt);
  await ended;
  assert.equal((await only(await post(`${url}/demo`, { cut: true }))).changedAt, changedAt, 'cut already');
  assert.equal((await only(await post(`${url}/demo`, { cut: false }))).cut, false);
  const after = dial();
  after.write('x');
  await once(after, 'data');
});

test('without the token, for another site or with another wish nothing happens', async t => {
  const { links } = await open(t);
  const { origin } = new URL(links.controlUrl);
  assert.equal((await fetch(`${origin}/links`)).status, 404);
  assert.equal((await post(`${origin}/wrong/links/demo`, { cut: true })).status, 404);
  assert.equal((await post(`${links.controlUrl}/links/plant`, { cut: true })).status, 404);
  assert.equal((await post(`${links.controlUrl}/links/demo`, { cut: 'yes' })).status, 400);
  assert.equal((await post(`${links.controlUrl}/links/demo`, { cut: 'x'.repeat(5000) })).status, 400);
  assert.equal((await only(await fetch(`${links.controlUrl}/links`))).cut, false);
});

async function cloudSide(t: TestContext, controlUrl: string | null): Promise<string> {
  const app = newApp();
  registerDemoLinks({ app, controlUrl, onError: () => {} });
  const listening = await listen(app, '127.0.0.1', 0);
  assert.ok(listening.outcome === 'listening');
  t.after(() => app.close());
  return `http://127.0.0.1:${listening.port}/demo/links`;
}

test('the cloud node passes the page’s wish on, and nobody else’s', async t => {
  const { links } = await open(t);
  const url = await cloudSide(t, links.controlUrl);
  assert.equal((await only(await fetch(url))).cut, false);
  assert.equal(
    (await post(`${url}/demo`, { cut: true }, { origin: 'http://elsewhere.example' })).status,
    403,
  );
  assert.equal((await post(`${url}/demo`, { cut: true }, { 'content-type': 'text/plain' })).status, 403);
  assert.equal((await post(`${url}/demo`, { cut: 'x'.repeat(5000) })).status, 400);
  assert.equal((await only(await fetch(url))).cut, false);
  const own = { origin: new URL(url).origin };
  assert.equal((await only(await post(`${url}/demo`, { cut: true }, own))).cut, true);
  assert.equal((await post(`${url}/plant`, { cut: true }, own)).status, 503);
});

test('where there is no demo there are no links, and none can be cut', async t => {
  const url = await cloudSide(t, null);
  assert.deepEqual(await (await fetch(url)).json(), { links: [] });
  // A node answers 404 to what it does not know; a bare web server hangs up.
  const status = await post(`${url}/demo`, { cut: true }).then(
    answer => answer.status,
    () => 404,
  );
  assert.equal(status, 404);
});
