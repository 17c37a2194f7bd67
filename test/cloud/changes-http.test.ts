/** Changes over HTTP on a real server: who may, what a body must be, and how a problem is told. */
import assert from 'node:assert/strict';
import { Agent, request } from 'node:http';
import { after, test } from 'node:test';
import { z } from 'zod';
import { changeAccess, changeJson, getJson, Problem } from '../../cloud/api/http.ts';
import { listen, newApp } from '../../cloud/web-server.ts';

const TOKEN = 'a token of the test, long';
const failures: string[] = [];
const closes: (() => void)[] = [];
const agent = new Agent({ keepAlive: true });
after(() => {
  agent.destroy();
  for (const close of closes) close();
});

async function serve(adminToken: string | null, host = '127.0.0.1'): Promise<number> {
  const app = newApp();
  const access = changeAccess(adminToken, host);
  const onError = (pattern: string, error: unknown) =>
    void failures.push(`${pattern}: ${(error as Error).message}`);
  const echo = ({
    parameters,
    query,
    body,
  }: {
    parameters: readonly string[];
    query: URLSearchParams;
    body: unknown;
  }) => ({
    parameters,
    q: query.get('q'),
    body: body ?? null,
  });
  for (const method of ['post', 'put', 'patch', 'del'] as const) {
    changeJson(app, method, '/things/:name', echo, access, onError);
  }
  const Thing = z.strictObject({ size: z.number().max(10), name: z.string() });
  changeJson(app, 'post', '/checked', ({ body }) => void Thing.parse(body), access, onError);
  changeJson(app, 'post', '/small', echo, access, onError, 10);
  changeJson(
    app,
    'post',
    '/broken',
    () => Promise.reject(new Error('secret of the server')),
    access,
    onError,
  );
  changeJson(
    app,
    'post',
    '/taken',
    () => {
      throw new Problem(409, 'Conflict', 'there is one');
    },
    access,
    onError,
  );
  getJson(app, '/things/:name', () => ({ read: true }), onError);
  const listening = await listen(app, '127.0.0.1', 0);
  assert.equal(listening.outcome, 'listening');
  closes.push(listening.close);
  return listening.port;
}

interface Answer {
  readonly status: number;
  readonly type: string;
  // biome-ignore lint/suspicious/noExplicitAny: answers of any shape, looked into by the tests
  readonly body: any;
}
const json = { 'content-type': 'application/json' };
const bearer = { authorization: `Bearer ${TOKEN}` };

/** By node:http, which lets a test say any Host and Origin. */
function ask(
  port: number,
  method: string,
  path: string,
  headers: Record<string, string> = {},
  body = '',
): Promise<Answer> {
  // Of a DELETE, Node sends a body only when its length is said.
  const all = method === 'DELETE' ? { 'content-length': Buffer.byteLength(body), ...headers } : headers;
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, method, path, headers: all, agent }, response => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', chunk => {
        text += chunk;
      });
      response.on('end', () =>
        resolve({
          status: response.statusCode!,
          type: response.headers['content-type'] ?? '',
          body: text === '' ? undefined : JSON.parse(text),
        }),
      );
    });
    asked.on('error', reject);
    asked.end(body);
  });
}

test('with a token set, only who sends it may change; everybody reads', async () => {
  const port = await serve(TOKEN);
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
    const done = await ask(port, method, '/things/a%20b?q=1', { ...json, ...bearer }, '{"x":[1]}');
    assert.deepEqual(done.body, { parameters: ['a b'], q: '1', body: { x: [1] } }, method);
    for (const authorization of ['', 'Bearer', 'Bearer wrong', `Basic ${TOKEN}`, `Bearer ${TOKEN}x`]) {
      const refused = await ask(port, method, '/things/a', { ...json, authorization }, '{}');
      assert.equal(refused.status, 401, `${method} with '${authorization}'`);
      assert.equal(refused.type, 'application/problem+json');
    }
  }
  assert.equal((await ask(port, 'GET', '/things/a')).status, 200);
});

test('without a token, changes come over loopback and from its own page alone', async () => {
  const port = await serve(null);
  const status = async (headers: Record<string, string>) =>
    (await ask(port, 'POST', '/things/a', { ...json, ...headers }, '{}')).status;
  assert.equal(await status({}), 200);
  assert.equal(await status({ host: `localhost:${port}`, origin: `http://localhost:${port}` }), 200);
  assert.equal(await status({ host: '[::1]:80' }), 200);
  assert.equal(await status({ origin: 'https://elsewhere.example' }), 403);
  assert.equal(await status({ origin: 'null' }), 403);
  assert.equal(await status({ host: 'rebound.example' }), 403, 'a foreign name that was pointed here');
  assert.equal(await status({ host: '127.0.0.1.example' }), 403);

  const open = await serve(null, '0.0.0.0');
  const refused = await ask(open, 'POST', '/things/a', json, '{}');
  assert.equal(refused.status, 403);
  assert.match(refused.body.detail, /HOLDFAST_ADMIN_TOKEN/);
});

test('a body is bounded JSON; what zod finds wrong in it is told as 400', async () => {
  const port = await serve(null);
  const post = (path: string, body: string, headers: Record<string, string> = json) =>
    ask(port, 'POST', path, headers, body);
  assert.deepEqual((await post('/things/a', '', {})).body.body, null, 'no body');
  assert.equal((await post('/things/a', '{', json)).status, 400);
  assert.equal((await post('/things/a', '{}', { 'content-type': 'text/plain' })).status, 415);
  assert.equal(
    (await post('/things/a', '{}', { 'content-type': 'application/json; charset=utf-8' })).status,
    200,
  );
  assert.equal((await post('/small', '"12345678"')).status, 200);
  assert.equal((await post('/small', '"123456789"')).status, 413);
  assert.equal((await post('/things/a', JSON.stringify('x'.repeat(2 ** 20)))).status, 413);
  const big = 'ü'.repeat(400_000);
  assert.equal((await post('/things/a', JSON.stringify(big))).body.body, big, 'comes in many chunks');

  assert.equal((await post('/checked', '{"size":1,"name":"n"}')).status, 204);
  const wrong = await post('/checked', '{"size":11,"more":1}');
  assert.equal(wrong.status, 400);
  assert.equal(wrong.type, 'application/problem+json');
  assert.match(wrong.body.detail, /size: .*; name: .*more/s);
});

test('a problem has its status; what breaks is told without its text', async () => {
  const port = await serve(null);
  assert.equal((await ask(port, 'POST', '/taken')).status, 409);
  const broken = await ask(port, 'POST', '/broken');
  assert.equal(broken.status, 503);
  assert.doesNotMatch(JSON.stringify(broken.body), /secret/);
  assert.deepEqual(failures, ['/broken: secret of the server']);
});
