/** `/incidents`, `/channels` and their commands, on a real server with a real receiver. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { changeAccess } from '../../../cloud/api/http.ts';
import { registerIncidentRoutes } from '../../../cloud/api/incidents.ts';
import { listen, newApp } from '../../../cloud/web-server.ts';
import { atEnd, freshDatabase, startTestNats, startTestPostgres } from '../servers.ts';
import { cleared, connectNats, opened, openOwner, openReceiver, untilTaken, verify } from './support.ts';

const TOKEN = 'a token of the test, long';
const pool = await freshDatabase(await startTestPostgres());
const nats = await connectNats(await startTestNats());
const receiver = await openReceiver();
const failures: unknown[] = [];

async function serve(webhookPrivate: boolean): Promise<string> {
  const app = newApp();
  const access = changeAccess(TOKEN, '127.0.0.1');
  registerIncidentRoutes({
    app,
    pool,
    nats,
    access,
    webhookPrivate,
    onError: (_, error) => void failures.push(error),
  });
  const listening = await listen(app, '127.0.0.1', 0);
  assert.ok(listening.outcome === 'listening');
  atEnd(async () => listening.close());
  return `http://127.0.0.1:${listening.port}`;
}
const url = await serve(true);
const strictUrl = await serve(false);
const owner = await openOwner(pool, nats);

type Answer = { status: number; body: Record<string, unknown> };
async function ask(method: string, path: string, body?: unknown, base = url, token = TOKEN): Promise<Answer> {
  const response = await fetch(base + path, {
    method,
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, body: text === '' ? {} : JSON.parse(text) };
}
const idsOf = ({ body }: Answer) => (body.incidents as { id: string }[]).map(({ id }) => id);

function command(name: string, ...args: string[]): Promise<{ code: number; out: string; error: string }> {
  const entry = fileURLToPath(new URL(`../../../cloud/commands/${name}-command.ts`, import.meta.url));
  const env = { ...process.env, HOLDFAST_URL: url, HOLDFAST_ADMIN_TOKEN: TOKEN };
  return new Promise(resolve =>
    execFile(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', entry, ...args],
      { env },
      (error, out, err) => resolve({ code: Number(error?.code ?? 0), out, error: err }),
    ),
  );
}

test('a list that is paged, one incident with its deliveries, and what is asked in a wrong way', async () => {
  const id = 'too-hot:demo/oven:abc:17.0';
  await owner.settle(opened(id), opened('second', { openedAt: opened(id).openedAt + 1 }));
  const first = await ask('GET', '/incidents?limit=1&state=open&from=2026-01-15T12:00:00Z');
  assert.deepEqual(idsOf(first), ['second']);
  const rest = await ask('GET', `/incidents?limit=1&after=${encodeURIComponent(String(first.body.next))}`);
  assert.deepEqual([idsOf(rest), rest.body.next], [[id], null]);
  const one = await ask('GET', `/incidents/${encodeURIComponent(id)}`);
  assert.equal(one.status, 200);
  assert.deepEqual(
    (one.body.deliveries as { channel: string }[]).map(({ channel }) => channel),
    ['nats'],
  );
  assert.equal((await ask('GET', '/incidents/none')).status, 404);
  for (const wrong of [
    'state=closed',
    'late=perhaps',
    'after=x',
    'from=yesterday',
    'limit=0',
    'severity=bad',
  ]) {
    assert.equal((await ask('GET', `/incidents?${wrong}`)).status, 400, wrong);
  }
});

test('acknowledge and clear say who; they need the token', async () => {
  await owner.settle(opened('seen'), opened('over'), cleared('over'));
  assert.equal((await ask('POST', '/incidents/seen/acknowledge', { by: 'Ada' }, url, 'wrong')).status, 401);
  const seen = await ask('POST', '/incidents/seen/acknowledge', { by: 'Ada', note: 'on my way' });
  assert.deepEqual(
    [seen.body.state, seen.body.acknowledgedBy, seen.body.acknowledgeNote],
    ['acknowledged', 'Ada', 'on my way'],
  );
  assert.equal((await ask('POST', '/incidents/over/acknowledge', { by: 'Ada' })).status, 409);
  assert.equal((await ask('POST', '/incidents/none/clear', {})).status, 404);
  assert.equal((await ask('POST', '/incidents/seen/clear', { by: '' })).status, 400);
  const over = await ask('POST', '/incidents/seen/clear', { by: 'Bob' });
  assert.deepEqual(
    [over.body.state, over.body.clearedBy, over.body.acknowledgedBy],
    ['cleared', 'Bob', 'Ada'],
  );
});

test('a channel: its secret is shown once, it is tested, told, changed and deleted', async () => {
  const put = await ask('PUT', '/channels/ops', {
    kind: 'webhook',
    target: receiver.url,
    severityMin: 'critical',
  });
  assert.equal(put.status, 200);
  const secret = String(put.body.secret);
  assert.match(secret, /^whsec_/);
  const listed = await ask('GET', '/channels');
  assert.doesNotMatch(
    JSON.stringify(listed.body),
    /whsec|\/hook/,
    'neither the secret nor the path of the URL',
  );

  assert.deepEqual((await ask('POST', '/channels/ops/test')).body.delivered, true);
  assert.equal(receiver.received[0]?.type, 'channel.test');
  verify(receiver.received[0]!, secret);
  receiver.answer = () => 500;
  const failed = await ask('POST', '/channels/ops/test');
  assert.deepEqual([failed.body.delivered, failed.body.reason], [false, 'status 500']);
  receiver.answer = () => 200;

  await owner.settle(opened('small'), opened('grave', { severity: 'critical' }));
  await untilTaken(receiver, 'incident.opened grave');
  assert.ok(!receiver.taken().includes('incident.opened small'));
  const again = await ask('PUT', '/channels/ops', { kind: 'webhook', target: receiver.url, sites: ['demo'] });
  assert.equal(again.body.secret, undefined, 'it keeps the secret it has');
  assert.equal((await ask('DELETE', '/channels/ops')).status, 204);
  assert.equal((await ask('DELETE', '/channels/ops')).status, 404);
  const { rowCount } = await pool.query(`select from holdfast.delivery where channel = 'ops'`);
  assert.equal(rowCount, 0);
});

test('private addresses, foreign schemes, credentials, short secrets and own subjects are refused', async () => {
  const webhook = (target: string, more = {}) => ({ kind: 'webhook', target, ...more });
  for (const target of [
    'http://127.0.0.1/',
    'http://0x7f.1/',
    'http://[::1]/',
    'https://localhost/',
    'http://169.254.169.254/latest',
  ]) {
    assert.equal((await ask('PUT', '/channels/x', webhook(target), strictUrl)).status, 400, target);
  }
  for (const target of ['ftp://example.org/', 'nonsense', 'https://user:pass@example.org/']) {
    assert.equal((await ask('PUT', '/channels/x', webhook(target))).status, 400, target);
  }
  assert.equal(
    (await ask('PUT', '/channels/x', webhook(receiver.url, { secret: 'whsec_c2hvcnQ=' }))).status,
    400,
  );
  assert.equal((await ask('PUT', '/channels/x', { kind: 'nats', target: 'ingest' })).status, 400);
  assert.equal((await ask('PUT', '/channels/x.y', { kind: 'nats' })).status, 400);
  // One that was allowed elsewhere is refused when it is used.
  await ask('PUT', '/channels/inner', webhook(receiver.url));
  const tested = await ask('POST', '/channels/inner/test', undefined, strictUrl);
  assert.match(String(tested.body.reason), /private address/);
  await ask('DELETE', '/channels/inner');
});

test('the commands', async () => {
  await owner.settle(opened('typed'));
  const list = await command('incidents', 'list', '--site', 'demo', '--state', 'open');
  assert.match(list.out, /open +warning +demo\/oven +heat 31 is above 30 +typed/);
  const ack = await command('incidents', 'ack', 'typed', '--by', 'Ada', '--note', 'on my way');
  assert.match(ack.out, /^Acknowledged by Ada: heat 31/);
  assert.match((await command('incidents', 'show', 'typed')).out, /"acknowledgeNote":"on my way"/);
  assert.match((await command('incidents', 'clear', 'typed', '--by', 'Bob')).out, /^Cleared by Bob/);
  assert.equal((await command('incidents', 'ack', 'no such')).code, 1);
  assert.equal((await command('incidents', 'ack')).code, 2);
  const put = await command(
    'channels',
    'put',
    'typed',
    '--webhook',
    receiver.url,
    '--site',
    'demo',
    '--severity',
    'warning',
  );
  assert.equal(put.error, '');
  assert.match(put.out, /Secret for the receiver, shown this once: whsec_/);
  assert.match(
    (await command('channels', 'list')).out,
    /typed +webhook +http:\/\/127\.0\.0\.1:\d+\/… +demo +warning +on +0 +0/,
  );
  assert.match((await command('channels', 'test', 'typed')).out, /took the test message/);
  assert.equal((await command('channels', 'delete', 'typed')).code, 0);
  assert.deepEqual(failures, []);
});
