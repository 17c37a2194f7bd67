/**
 * What people are told of completeness, over HTTP from a cloud node on real servers, with gateways that the test plays:
 * live, late, thinned, lost and missing messages, silent gateways, presence, metrics, and the ping of a dashboard.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { before, test } from 'node:test';
import type { SiteCompleteness } from '../../cloud/api/completeness.ts';
import type { Shade } from '../../cloud/api/shades.ts';
import type { SummaryPoint } from '../../cloud/api/summaries.ts';
import type { TwinView } from '../../cloud/twin-json.ts';
import { buildBatch } from '../../edge-gateway/batch-builder.ts';
import type { ReadingsBatch, ThinnedBatch } from '../../protocol/batch.ts';
import { gatewayId, logId, newLogId } from '../../protocol/ids.ts';
import { frame } from '../edge-gateway/frames.ts';
import { type CloudScene, EDGE, openCloudScene } from './gateway-player.ts';
import { MINUTE_MS, range, type Sent, SITE, thinnedOf } from './history.ts';
import { eventually } from './servers.ts';

interface GatewayEntry {
  gateway: string;
  link: string;
  silentSinceMs: number | null;
  lastHelloAt: number;
  wireBytesLeft: number;
  forecast: object;
  role: string;
}

let scene: CloudScene;
before(async () => {
  scene = await openCloudScene();
});

const HOUR_MS = 60 * MINUTE_MS;
/** A full minute some hours ago, so that minutes are easy to name. */
const T = Math.floor(Date.now() / MINUTE_MS) * MINUTE_MS - 6 * HOUR_MS;

/** Messages that arrived a second apart from `at` on. */
const arrivedAt = (log: ReadingsBatch['logId'], first: number, at: number, messages: readonly Sent[]) =>
  buildBatch(
    log,
    messages.map(([topic, payload], index) =>
      frame(first + index, topic, JSON.stringify(payload), { receivedAt: at + index * 1000 }),
    ),
  );
const telemetry = (device: string, count: number): Sent[] =>
  range(0, count).map(n => [`devices/${device}/telemetry`, { n }]);

function keptAt(thinned: ThinnedBatch, at: number): void {
  thinned.kept.rows.receivedAt.fill(at);
  thinned.kept.rows.at.fill(at);
}

const completeness = () => scene.get<SiteCompleteness>(`/sites/${SITE}/completeness`);
const gatewayIn = async (name: string) =>
  (await completeness()).gateways.find(({ gateway }) => gateway === name);
async function entry(name: string): Promise<GatewayEntry> {
  const { sites } = await scene.get<{ sites: { site: string; gateways: GatewayEntry[] }[] }>('/sites');
  return sites.find(({ site }) => site === SITE)!.gateways.find(({ gateway }) => gateway === name)!;
}
const history = (device: string, from: number, to: number, more = '') =>
  scene.get<{ points: unknown[]; summaries: SummaryPoint[]; shades: Shade[]; truncated: boolean }>(
    `/twins/${SITE}/${device}/history?metric=n&from=${from}&to=${to}${more}`,
  );

test('a site nobody knows has no completeness', async () => {
  await assert.rejects(scene.get('/sites/nowhere/completeness'), /404/);
  await assert.rejects(scene.get('/sites/no%20site/completeness'), /404/);
});

test('every message of a gateway is told: live, late, thinned, lost, quarantined, missing', async () => {
  const log = newLogId(T);
  const older = newLogId(T - HOUR_MS);
  await scene.hello(EDGE, { [log]: 401, [older]: 11 });
  await scene.publish(EDGE, 'live', arrivedAt(log, 391, T + 3 * HOUR_MS, telemetry('a', 5)));
  await scene.publish(
    EDGE,
    'backfill',
    arrivedAt(log, 1, T, [...telemetry('a', 50), ['fits/nothing', 'x'], ...telemetry('a', 20)]),
  );
  const kept = new Map<number, Sent>([[200, ['devices/a/events', { door: 'open' }]]]);
  const thinned: ThinnedBatch = {
    ...thinnedOf(101, 100, {
      kept,
      logId: log,
      summaries: [
        { device: 'a', from: T + HOUR_MS, minimum: -1, maximum: 4, mean: 2, count: 90 },
        { device: 'a', from: T + HOUR_MS + MINUTE_MS, minimum: 5, maximum: 5, mean: 5, count: 1 },
      ],
    }),
    receivedFrom: T + HOUR_MS,
    receivedTo: T + HOUR_MS + 2 * MINUTE_MS - 1,
  };
  keptAt(thinned, T + HOUR_MS + 1.5 * MINUTE_MS);
  await scene.publish(EDGE, 'backfill', thinned);
  await scene.publish(EDGE, 'backfill', {
    settlement: 'lost',
    logId: log,
    firstSequence: 301,
    count: 20,
    reason: 'disk damaged',
  });
  await eventually('all of it is settled, and the hello is written down', async () => {
    const found = await gatewayIn(EDGE);
    return found?.totals.settled === 196 && found.totals.missing === 214;
  });
  const found = (await gatewayIn(EDGE))!;
  const nothing = { late: 0, thinned: 0, lost: 0, quarantined: 0, expired: 0 };
  assert.deepEqual(
    found.logs.map(({ lastSeenAt, ...of }) => of),
    [
      {
        logId: log,
        ends: 401,
        settled: 196,
        live: 5,
        late: 71,
        thinned: 99,
        lost: 20,
        quarantined: 1,
        expired: 0,
        missing: 204,
        missingRanges: '[72,101),[201,301),[321,391),[396,401)',
      },
      { logId: older, ends: 11, settled: 0, live: 0, ...nothing, missing: 10, missingRanges: '[1,11)' },
    ],
    'newest first',
  );
  for (const { lastSeenAt } of found.logs) assert.ok(lastSeenAt! > T);

  const listed = await scene.get<SiteCompleteness>(`/sites/${SITE}/completeness?limit=1`);
  assert.equal(listed.truncated, true);
  assert.deepEqual(
    listed.gateways[0]!.logs.map(({ logId: of }) => of),
    [log],
  );
  assert.deepEqual(listed.gateways[0]!.totals, found.totals, 'the totals have all logs');

  const chart = await history('a', T, T + 4 * HOUR_MS);
  assert.equal(chart.points.length, 75);
  assert.deepEqual(chart.summaries, [
    [T + HOUR_MS, MINUTE_MS, -1, 4, 2, 90],
    [T + HOUR_MS + MINUTE_MS, MINUTE_MS, 5, 5, 5, 1],
  ]);
  assert.deepEqual(
    chart.shades.map(({ from, to, what }) => [(from - T) / MINUTE_MS, (to - T) / MINUTE_MS, what]),
    [
      [0, 2, 'late'],
      [60, 62, 'thinned'],
      // The kept event came late like all of its run.
      [61, 62, 'late'],
    ],
  );
  const newest = await history('a', T, T + 4 * HOUR_MS, '&limit=1');
  assert.deepEqual(newest.summaries, [[T + HOUR_MS + MINUTE_MS, MINUTE_MS, 5, 5, 5, 1]]);
  assert.equal(newest.truncated, true);
  const within = await history('a', T + HOUR_MS + 1000, T + HOUR_MS + 2000);
  assert.equal(within.summaries.length, 1, 'an interval that reaches into the range');

  const twin = await scene.get<TwinView>(`/twins/${SITE}/a`);
  assert.equal(twin.metrics['event.door']?.value, 'open', 'the twin has what was kept (C)');
});

test('a status message is the presence of its device, also when it comes thinned', async () => {
  const log = newLogId(T + 1);
  const said = (state: string): Sent => ['devices/b/status', state];
  await scene.publish(EDGE, 'live', arrivedAt(log, 1, T, [said('online')]));
  const thinned = thinnedOf(2, 10, { logId: log, kept: new Map([[6, said('offline')]]) });
  const at = T + MINUTE_MS;
  keptAt(thinned, at);
  await scene.publish(EDGE, 'backfill', thinned);
  const twin = () => scene.get<TwinView>(`/twins/${SITE}/b`);
  await eventually('the device is offline', async () => (await twin()).presence?.online === false);
  assert.deepEqual((await twin()).presence, { online: false, at });
});

test('metrics are in the format of Prometheus, with a line for every gateway', async () => {
  await scene.hello(
    gatewayId('edge-2'),
    {},
    {
      bufferBytes: 12_345,
      wireBytesLeft: 678,
      forecast: { fullInSeconds: 3600, drainedInSeconds: null },
      // What nobody honest says must not cost the others their figures (H).
      messages: -1,
    },
  );
  const response = await fetch(`${scene.url()}/metrics`);
  assert.match(response.headers.get('content-type')!, /^text\/plain; version=0\.0\.4/);
  const lines = (await response.text()).trimEnd().split('\n');
  const types = new Map<string, string>();
  const samples = new Map<string, number>();
  for (const line of lines) {
    const type = /^# TYPE (\w+) (gauge|counter)$/.exec(line);
    if (type) types.set(type[1]!, type[2]!);
    if (line === '' || line.startsWith('#')) continue;
    const sample = /^([a-z0-9_]+)(\{(?:\w+="[^"]*",?)*\})? (-?[\d.e+-]+)$/.exec(line);
    assert.ok(sample, line);
    assert.ok(types.has(sample[1]!), line);
    if (types.get(sample[1]!) === 'counter') assert.match(sample[1]!, /_total$/);
    samples.set(sample[1]! + (sample[2] ?? ''), Number(sample[3]));
  }
  const edge2 = `{site="${SITE}",gateway="edge-2"}`;
  assert.equal(samples.get(`holdfast_gateway_buffer_bytes${edge2}`), 12_345);
  assert.equal(samples.get(`holdfast_gateway_wire_bytes_left${edge2}`), 678);
  assert.equal(samples.get(`holdfast_gateway_full_in_seconds${edge2}`), 3600);
  assert.equal(samples.has(`holdfast_gateway_drained_in_seconds${edge2}`), false, 'not known');
  assert.equal(samples.get(`holdfast_gateway_up${edge2}`), 1);
  assert.equal(samples.get(`holdfast_gateway_buffer_bytes{site="${SITE}",gateway="${EDGE}"}`), 1_000_000);
  assert.ok(samples.get('holdfast_ingest_thinned_messages_total')! >= 100);
  assert.ok(samples.get('holdfast_ingest_late_messages_total')! >= 71);
  assert.equal(samples.get('holdfast_server_up{server="postgres"}'), 1);
  assert.equal(samples.has('holdfast_history_queue_bytes'), true);
  assert.equal(samples.get('holdfast_channel_up{channel="nats"}'), 1);
  assert.equal(samples.get('holdfast_channel_waiting_pages{channel="nats"}'), 0);
  assert.ok(samples.get('holdfast_backup_uncovered_messages')! >= 0);
  assert.equal(samples.get('holdfast_backup_overdue'), 0);
});

test("a dashboard's ping is answered", async () => {
  const socket = new WebSocket(`${scene.url().replace('http', 'ws')}/push`);
  await once(socket, 'open');
  socket.send('{"type":"ping"}');
  const [message] = (await once(socket, 'message')) as [MessageEvent];
  assert.deepEqual(JSON.parse(String(message.data)), { type: 'pong' });
  socket.close();
});

test('a gateway that died stays on the page, after a restart of the cloud too: silent since, and what it held', async () => {
  const dead = gatewayId('edge-dead');
  const log = logId(`${'0'.repeat(31)}1`);
  const heldSince = Date.now() - 2 * HOUR_MS;
  await scene.hello(
    dead,
    { [log]: 1001 },
    { unsettledMessages: 1000, oldestUnsettledAt: heldSince, wireBytesLeft: 5000 },
  );
  const shownAt = (await entry(dead)).lastHelloAt!;
  assert.equal((await entry(dead)).link, 'up');
  await scene.restartNode();

  const again = await entry(dead);
  // Who shows it and who stores it need not be the same node: each has its own clock.
  const heardAt = again.lastHelloAt!;
  assert.ok(Math.abs(heardAt - shownAt) < 1000, `${heardAt - shownAt} ms apart`);
  assert.equal(again.link, 'up', 'a node that has just begun to listen does not know better');
  assert.equal(again.wireBytesLeft, 5000);
  assert.equal(again.role, 'active');
  const ledger = (await gatewayIn(dead))!;
  assert.equal(ledger.lastHelloAt, heardAt);
  assert.deepEqual(
    ledger.logs.map(({ missing, missingRanges, lastSeenAt }) => ({ missing, missingRanges, lastSeenAt })),
    [{ missing: 1000, missingRanges: '[1,1001)', lastSeenAt: heardAt }],
  );
  const held = await history('a', heldSince - HOUR_MS, Date.now());
  assert.deepEqual(
    held.shades.filter(({ what }) => what === 'missing'),
    [{ from: heldSince, to: heardAt, what: 'missing' }],
  );

  await eventually('it counts as silent', async () => (await entry(dead)).link === 'silent');
  assert.equal((await entry(dead)).silentSinceMs, heardAt);
  const twin = () => scene.get<TwinView & { gatewaySilentSince: number | null }>(`/twins/${SITE}/a`);
  assert.equal((await twin()).gatewaySilentSince, heardAt, 'none of the site is heard');
  const until = Date.now();
  const { shades } = await history('a', heldSince, until);
  assert.deepEqual(shades.at(-1), { from: heldSince, to: until, what: 'missing' });

  await scene.hello(EDGE, {});
  assert.equal((await twin()).gatewaySilentSince, null, 'another gateway of the site is heard');
  assert.equal((await entry(EDGE)).link, 'up');
  assert.equal((await entry(dead)).link, 'silent');
});

test('a log that is settled further than its gateway said last misses nothing', async () => {
  const log = newLogId(T + 2);
  await scene.hello(EDGE, { [log]: 2 });
  await scene.publish(EDGE, 'live', arrivedAt(log, 1, T, telemetry('c', 10)));
  await eventually('it is settled and known', async () => {
    // As gateways do: what a hello says of a log that is being settled at that moment is left for the next one.
    await scene.hello(EDGE, { [log]: 2 });
    const found = (await gatewayIn(EDGE))!.logs.find(({ logId: of }) => of === log);
    return found?.settled === 10 && found.lastSeenAt !== null;
  });
  const { ends, missing, missingRanges } = (await gatewayIn(EDGE))!.logs.find(({ logId: of }) => of === log)!;
  assert.deepEqual({ ends, missing, missingRanges }, { ends: 11, missing: 0, missingRanges: '' });
});
