/**
 * A site whose link is cut long enough for a backlog: when it returns the dashboard is fresh at once, the backlog
 * follows behind, and nothing is missing or double (A, B, C).
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { type Link, openLink } from '../../deploy/local/link.ts';
import { LIVE_WAITING_MAX } from '../../edge-gateway/lanes.ts';
import { checkAll, checkLedger } from './checker.ts';
import { startPublisher } from './publisher.ts';
import { lastWords, openScene, type Scene, until } from './scene.ts';
import { openWatcher, type Watcher } from './watcher.ts';

const SITE = 'demo';

let scene: Scene;
let watcher: Watcher;
let link: Link;

before(async () => {
  scene = await openScene({
    sites: { [SITE]: ['gw-1'] },
    async gatewayNatsUrl(url) {
      const through = new URL(url);
      link = await openLink({ host: through.hostname, port: Number(through.port) });
      through.port = String(link.port);
      return through.toString();
    },
  });
  watcher = await openWatcher({ url: scene.stack.url, sites: [SITE] });
});
after(async () => {
  watcher?.close();
  await scene?.close();
  await link?.close();
});

const handled = async (lane: string) => {
  const { rows } = await scene.postgres.query<{ sequence: string }>(
    'select stream_sequence as sequence from holdfast.stream_cursor where lane = $1',
    [lane],
  );
  return Number(rows[0]?.sequence ?? 0);
};

for (const [name, fail] of [
  ['cut', () => link.cut()],
  ['half-open', () => link.stall()],
] as const) {
  test(`after a link was ${name}, live goes first and the backlog follows`, async () => {
    const publisher = await startPublisher({
      url: scene.stack.brokers.get(SITE)!.deviceUrl,
      prefix: name,
      devices: 20,
      messagesPerSecond: 3000,
    });
    try {
      await publisher.reached(1000);
      const backfillBefore = await handled('backfill');
      fail();
      await publisher.reached(publisher.acknowledged + LIVE_WAITING_MAX + 4000);
      link.heal();
      const healedAt = Date.now();
      const isFresh = () =>
        [...watcher.twins].some(
          ([twin, { metrics }]) => twin.includes(name) && (metrics.n?.at ?? 0) >= healedAt,
        );
      await until('a reading from after the cut is on the dashboard', 30_000, async () => isFresh());
      const freshMs = Date.now() - healedAt;
      const unsettled = (
        await scene.get<{ sites: { gateways: { unsettledMessages: number }[] }[] }>('/sites')
      ).sites;
      await publisher.finish();
      await checkAll(scene, SITE, publisher.journal, `link ${name}`);
      await checkLedger(scene, SITE);
      const waited = unsettled[0]?.gateways[0]?.unsettledMessages;
      console.log(`link ${name}: fresh ${freshMs} ms after its return, ${waited} messages waited`);
      assert.ok((await handled('backfill')) > backfillBefore, 'the backlog travelled in its own lane');
    } catch (error) {
      console.log(lastWords(scene));
      throw error;
    } finally {
      await publisher.stop();
    }
  });
}

test('no dashboard saw a gap or a value go back through all that', () => {
  assert.deepEqual(watcher.breaches, []);
});
