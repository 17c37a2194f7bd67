import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isNews, judgeChange } from '../../cloud/push/feed.ts';
import { ClientMessage, errorMessage, snapshotMessage, updateMessage } from '../../cloud/push/messages.ts';

const known = { epoch: 5, version: 10 };

test('what a push node does with a change: forward, drop as old, or mend a gap (C, D)', () => {
  const cases: [typeof known | undefined, { epoch: number; since: number; version: number }, string][] = [
    [undefined, { epoch: 5, since: 0, version: 1 }, 'forward'],
    [undefined, { epoch: 5, since: 0, version: 9 }, 'forward'],
    [undefined, { epoch: 5, since: 1, version: 2 }, 'gap'],
    [known, { epoch: 5, since: 10, version: 11 }, 'forward'],
    [known, { epoch: 5, since: 10, version: 15 }, 'forward'],
    [known, { epoch: 5, since: 11, version: 12 }, 'gap'],
    // Overlaps what is known without starting there: only a snapshot tells.
    [known, { epoch: 5, since: 9, version: 11 }, 'gap'],
    [known, { epoch: 5, since: 9, version: 10 }, 'old'],
    [known, { epoch: 5, since: 0, version: 1 }, 'old'],
    [known, { epoch: 4, since: 10, version: 11 }, 'old'],
    [known, { epoch: 4, since: 99, version: 100 }, 'old'],
    // Another owner's version 10 may be another state.
    [known, { epoch: 6, since: 10, version: 11 }, 'gap'],
    [known, { epoch: 6, since: 8, version: 9 }, 'gap'],
    [known, { epoch: 6, since: 0, version: 1 }, 'gap'],
    [known, { epoch: 6, since: 12, version: 13 }, 'gap'],
  ];
  for (const [has, change, verdict] of cases) {
    assert.equal(judgeChange(has, change), verdict, JSON.stringify({ has, change }));
  }
});

test('a snapshot is news unless it is older', () => {
  assert.equal(isNews(undefined, { epoch: 1, version: 0 }), true);
  assert.equal(isNews(known, { epoch: 5, version: 10 }), true);
  assert.equal(isNews(known, { epoch: 5, version: 11 }), true);
  assert.equal(isNews(known, { epoch: 6, version: 1 }), true);
  assert.equal(isNews(known, { epoch: 5, version: 9 }), false);
  assert.equal(isNews(known, { epoch: 4, version: 99 }), false);
});

test('subscriptions: names are checked, what is left out is empty', () => {
  assert.deepEqual(ClientMessage.parse({ type: 'subscribe', sites: ['demo'] }), {
    type: 'subscribe',
    sites: ['demo'],
    twins: [],
  });
  assert.deepEqual(ClientMessage.parse({ type: 'unsubscribe', twins: ['demo/pump-1', 'demo/A:7.b'] }), {
    type: 'unsubscribe',
    sites: [],
    twins: ['demo/pump-1', 'demo/A:7.b'],
  });
  assert.deepEqual(ClientMessage.parse({ type: 'ping' }), { type: 'ping' });
  const max = Array.from({ length: 1000 }, (_, index) => `site-${index}`);
  assert.equal(ClientMessage.safeParse({ type: 'subscribe', sites: max }).success, true);
});

test('anything else is refused (S, F)', () => {
  const twin = (name: unknown) => ({ type: 'subscribe', twins: [name] });
  const site = (name: unknown) => ({ type: 'subscribe', sites: [name] });
  for (const message of [
    null,
    [],
    'subscribe',
    {},
    { type: 'publish' },
    { type: 'subscribe', sites: 'demo' },
    { type: 'subscribe', twins: { 0: 'demo/pump' } },
    ...['', '*', '>', 'a.b', 'a b', 'a/b', 'ü', 'x'.repeat(65), 5, null].map(site),
    ...[
      '',
      '/',
      'demo',
      'demo/',
      '/pump',
      'demo/a/b',
      'demo/*',
      'de mo/pump',
      `demo/${'x'.repeat(129)}`,
      5,
    ].map(twin),
    { type: 'subscribe', sites: Array(1001).fill('demo') },
    { type: 'subscribe', twins: Array(1001).fill('demo/pump') },
  ]) {
    assert.equal(ClientMessage.safeParse(message).success, false, JSON.stringify(message));
  }
});

test('what is sent is JSON of the documented form', () => {
  assert.deepEqual(JSON.parse(updateMessage('demo', ['{"device":"a"}', '{"device":"b"}'])), {
    type: 'update',
    site: 'demo',
    twins: [{ device: 'a' }, { device: 'b' }],
  });
  assert.deepEqual(JSON.parse(snapshotMessage('site:demo', [], 1, 1)), {
    type: 'snapshot',
    scope: 'site:demo',
    part: 1,
    parts: 1,
    twins: [],
  });
  assert.deepEqual(JSON.parse(errorMessage('code', 'a "quoted" detail')), {
    type: 'error',
    code: 'code',
    detail: 'a "quoted" detail',
  });
});
