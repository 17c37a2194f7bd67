/** What of a gateway's state wants attention, and how it reads. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { statusAsText } from '../../edge-gateway/status/as-text.ts';
import { asMetrics } from '../../edge-gateway/status/metrics.ts';
import { attention, type GatewayState } from '../../edge-gateway/status/state.ts';
import { newTroubleMemory } from '../../edge-gateway/status/trouble-memory.ts';

const NOW = new Date(2026, 0, 15, 12).getTime();
const sent = { batches: 2, messages: 100, bytes: 900 };

const fine: GatewayState = {
  site: 'demo',
  gateway: 'gw-1',
  pid: 42,
  startedAt: NOW - 90_061_000,
  now: NOW,
  residentBytes: 120 * 1024 * 1024,
  report: {
    bufferBytes: 512 * 1024 * 1024,
    bufferBytesMax: 1024 * 1024 * 1024,
    unsettledMessages: 120,
    messages: 1_234_567,
    dropped: 0,
    syncMs: 1.5,
    broker: { connected: true, reason: null },
    oldestUnsettledAt: NOW - 3000,
    wireBytesLeft: 2048,
    forecast: { fullInSeconds: null, drainedInSeconds: 0 },
    thinnedMessages: 0,
    lostMessages: 0,
    dataBudget: null,
    role: 'active',
  },
  disk: {
    full: false,
    logs: 1,
    segments: 3,
    fsyncs: 10,
    fsyncMs: { p50: 1, p99: 1.5, max: 2 },
    writeErrors: 0,
  },
  link: {
    connected: true,
    reason: null,
    waitingMessages: 20,
    waitingWireBytes: 2048,
    oldest: null,
    sent: { live: sent, backfill: { batches: 0, messages: 0, bytes: 0 } },
    wireBytes: 5000,
    allowance: { live: true, backfill: true, gatherMs: 5, eventGatherMs: 5, helloMs: 5000, exhausted: false },
  },
  troubles: [],
};

const report = (more: Partial<GatewayState['report']>): GatewayState => ({
  ...fine,
  report: { ...fine.report, ...more },
});

const cases: [string, GatewayState, RegExp | null][] = [
  ['all is well', fine, null],
  ['no broker', report({ broker: { connected: false, reason: 'refused' } }), /broker .*: refused/],
  ['no broker, standing by', report({ broker: { connected: false, reason: null }, role: 'standby' }), null],
  ['no link', { ...fine, link: { ...fine.link, connected: false, reason: 'down' } }, /cloud .*: down/],
  ['full', { ...fine, disk: { ...fine.disk, full: true } }, /full: the broker holds/],
  [
    'full within a day',
    report({ forecast: { fullInSeconds: 3600, drainedInSeconds: null } }),
    /within a day/,
  ],
  ['full in a week', report({ forecast: { fullInSeconds: 604_800, drainedInSeconds: null } }), null],
  [
    'budget used up',
    {
      ...report({ dataBudget: { bytesMax: 10, bytesUsed: 10, resetsAt: NOW } }),
      link: { ...fine.link, allowance: { ...fine.link.allowance, exhausted: true } },
    },
    /until 2026-01-15 12:00/,
  ],
  ['lost', report({ lostMessages: 3 }), /^3 messages cannot be read/],
  ['dropped', report({ dropped: 3 }), /^3 messages of QoS 0/],
  ['an error just now', { ...fine, troubles: [{ at: NOW - 1000, level: 'error', text: 'x' }] }, /errors/],
  ['an old error', { ...fine, troubles: [{ at: NOW - 3_600_000, level: 'error', text: 'x' }] }, null],
  ['a warning', { ...fine, troubles: [{ at: NOW - 1000, level: 'warn', text: 'x' }] }, null],
];

for (const [name, state, expected] of cases) {
  test(`attention: ${name}`, () => {
    const wants = attention(state);
    if (expected === null) assert.deepEqual(wants, []);
    else {
      assert.equal(wants.length, 1);
      assert.match(wants[0]!, expected);
    }
  });
}

test('a person reads the figures with their units', () => {
  const text = statusAsText({ ...fine, troubles: [{ at: NOW, level: 'warn', text: 'the link is down' }] });
  assert.match(text, /^demo\/gw-1: all is well$/m);
  assert.match(text, /role +active, for 1 d 1 h \(process 42, 120 MiB of memory\)/);
  assert.match(text, /buffer +\[#{15}\.{15}\] 50 % 512 MiB of 1\.0 GiB/);
  assert.match(text, /waiting +20 messages, about 2\.0 KiB on the wire; 100 sent and not settled yet/);
  assert.match(text, /oldest +2026-01-15 11:59:57, 3 s ago/);
  assert.match(text, /taken +1,234,567 messages since start$/m);
  assert.match(text, /2026-01-15 12:00:00 {2}warn {2}the link is down/);
});

test('every metric has its help and type, and what is not known is left out', () => {
  const metrics = asMetrics(fine);
  assert.match(metrics, /^holdfast_edge_messages_total\{site="demo",gateway="gw-1"\} 1234567$/m);
  assert.match(metrics, /^holdfast_edge_sent_bytes_total\{site="demo",gateway="gw-1",lane="live"\} 900$/m);
  assert.doesNotMatch(metrics, /full_in_seconds|budget|NaN|null|undefined/);
  const names = new Set([...metrics.matchAll(/^(\w+)\{/gm)].map(([, name]) => name!));
  for (const name of names) {
    assert.match(metrics, new RegExp(`^# HELP ${name} .+\n# TYPE ${name} (gauge|counter)\n${name}\\{`, 'm'));
  }
});

test('the newest warnings are remembered with their reason, repeated ones once, and not too many', () => {
  const memory = newTroubleMemory(() => NOW);
  const quiet = pino({ hooks: memory.hooks }, { write() {} });
  quiet.info('nothing');
  quiet.warn({ reason: 'no route' }, 'link down');
  quiet.warn({ reason: 'no route' }, 'link down');
  quiet.error({ err: new Error('EIO') }, 'disk');
  assert.deepEqual(memory.newest(), [
    { at: NOW, level: 'warn', text: 'link down: no route' },
    { at: NOW, level: 'error', text: 'disk: EIO' },
  ]);
  for (let i = 0; i < 50; i++) quiet.warn(`trouble ${i}`);
  assert.equal(memory.newest().length, 20);
  assert.equal(memory.newest().at(-1)!.text, 'trouble 49');
});
