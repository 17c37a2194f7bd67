/** The pure parts of delivery: which addresses are private, how long a retry waits, what a flood is. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  backoffMs,
  openChannelQueue,
  queueLimits,
  type Result,
} from '../../../cloud/incidents/channel-queue.ts';
import { digestDueAt, floodRule, freshFlow, isCalm, takeToken } from '../../../cloud/incidents/flood.ts';
import type { Page, PageEvent } from '../../../cloud/incidents/page.ts';
import { isPrivateAddress, publicLookup } from '../../../cloud/incidents/private-addresses.ts';
import type { SendOutcome } from '../../../cloud/incidents/webhook.ts';
import { eventually } from '../servers.ts';
import { opened } from './support.ts';

test('private, local, mapped and translated addresses are private; public ones are not', () => {
  const own = [
    '127.0.0.1',
    '10.1.2.3',
    '172.31.0.1',
    '192.168.1.1',
    '169.254.169.254',
    '100.64.0.1',
    '0.0.0.0',
    '255.255.255.255',
  ];
  const own6 = [
    '::1',
    '::',
    'fe80::1',
    'fd00::1',
    '::ffff:10.0.0.1',
    '::ffff:7f00:1',
    '64:ff9b::a00:1',
    '2002:a00:1::',
  ];
  for (const address of [...own, ...own6]) assert.ok(isPrivateAddress(address), address);
  for (const address of ['1.1.1.1', '172.32.0.1', '2606:4700::1111', '::ffff:1.1.1.1']) {
    assert.ok(!isPrivateAddress(address), address);
  }
});

test('a name that leads to a private address is not connected to', async () => {
  for (const all of [true, false]) {
    const error = await new Promise<Error | null>(resolve => publicLookup('localhost', { all }, resolve));
    assert.match(String(error?.message), /localhost is the private address/);
  }
});

test('waits double from about 2 s to an hour, never less than half', () => {
  assert.deepEqual(
    [1, 2, 3].map(attempts => backoffMs(attempts, 1)),
    [2000, 4000, 8000],
  );
  assert.equal(backoffMs(1, 0), 1000);
  assert.equal(backoffMs(1000, 1), queueLimits.backoffMaxMs);
});

test('of a flood, ten go at once and one more every 6 s; digests are 30 s apart', () => {
  let flow = freshFlow(0);
  const sentAt: number[] = [];
  for (let now = 0; now <= 60_000; now += 100) {
    const after = takeToken(flow, now);
    if (after) sentAt.push(now);
    flow = after ?? flow;
  }
  assert.equal(sentAt.filter(at => at < 1000).length, 10);
  assert.equal(sentAt.length, 20);
  assert.equal(digestDueAt(flow, 60_000), 60_000 + floodRule.holdMs);
  assert.equal(digestDueAt({ ...flow, digestAt: 59_000 }, 60_000), 59_000 + floodRule.digestEveryMs);
  assert.ok(!isCalm(flow, 60_000));
  assert.ok(isCalm(flow, 60_000 + 60_000));
});

const page = (incident: string, event: PageEvent, since = Date.now()): Page => ({
  event,
  incident: opened(incident, event === 'cleared' ? { clearedAt: 1 } : {}),
  partition: 0,
  epoch: 1,
  since,
});

test('however offers and refusals fall, each page is told once, the opening before its clear', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.integer({ min: 0, max: 5 }), fc.boolean()), { minLength: 1, maxLength: 30 }),
      fc.array(fc.boolean(), { maxLength: 8 }),
      fc.boolean(),
      async (offers, refusals, digests) => {
        let clock = 0;
        const told: string[] = [];
        const answers = [...refusals];
        const queue = openChannelQueue({
          channel: 'c',
          digests,
          now: () => clock,
          holds: () => true,
          send: async (): Promise<SendOutcome> =>
            answers.pop()
              ? { outcome: 'refused', reason: 'not now', final: false, retryAfterMs: null }
              : { outcome: 'delivered' },
          onResult(pages: readonly Page[], { state }: Result) {
            if (state === 'delivered')
              for (const { incident, event } of pages) told.push(`${incident.id} ${event}`);
          },
        });
        const offered = new Set<string>();
        const openings = new Set<number>();
        for (const [id, isClear] of offers) {
          // As delivery.ts does: a clear comes when its opening is there, and nothing comes twice.
          const event = isClear && openings.has(id) ? 'cleared' : 'opened';
          if (event === 'opened') openings.add(id);
          if (offered.has(`${id} ${event}`)) continue;
          offered.add(`${id} ${event}`);
          assert.equal(queue.offer(page(String(id), event, 0)), 'taken');
        }
        await eventually('the queue is empty', () => {
          // Any later offer looks at the clock again; this one is known or told.
          clock += 10_000;
          queue.poke();
          return queue.pages === 0;
        });
        queue.close();
        assert.deepEqual([...told].sort(), [...offered].sort());
        for (const id of openings) {
          const clear = told.indexOf(`${id} cleared`);
          assert.ok(clear === -1 || told.indexOf(`${id} opened`) < clear, told.join());
        }
      },
    ),
    { numRuns: 40, verbose: 1 },
  );
});

test('what has waited for a day is given up; what does not fit is refused', async () => {
  const results: Result[] = [];
  const queue = openChannelQueue({
    channel: 'c',
    digests: false,
    holds: () => true,
    send: async () => ({ outcome: 'refused', reason: 'never', final: false, retryAfterMs: null }),
    onResult: (_, result) => results.push(result),
  });
  queue.offer(page('old', 'opened', Date.now() - queueLimits.giveUpMs));
  await eventually('it is given up', () => queue.pages === 0);
  assert.deepEqual(results, [{ state: 'failed', attempts: 1, reason: 'never' }]);
  for (let i = 0; i < queueLimits.pagesMax; i++) queue.offer(page(`p-${i}`, 'opened'));
  assert.equal(queue.offer(page('one more', 'opened')), 'full');
  assert.equal(queue.offer(page('p-1', 'opened')), 'known');
  queue.close();
});

test("a machine's clock that was hours ahead for a moment holds nothing back", async t => {
  const told: string[] = [];
  const queue = openChannelQueue({
    channel: 'c',
    digests: true,
    holds: () => true,
    send: async () => ({ outcome: 'delivered' }),
    onResult: pages => told.push(...pages.map(({ incident }) => incident.id)),
  });
  t.after(() => queue.close());
  const names = Array.from({ length: floodRule.pagesAtOnce + 2 }, (_, i) => `p-${i}`);
  for (const name of names) queue.offer(page(name, 'opened'));
  const { now } = Date;
  Date.now = () => now() + 4 * 3_600_000;
  queue.poke();
  await new Promise(resolve => setTimeout(resolve, 50));
  Date.now = now;
  queue.offer(page('last', 'opened'));
  await eventually('all are told', () => told.length === names.length + 1);
});
