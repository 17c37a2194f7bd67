/** A gateway that starts on a copied folder with a hole: it sends the rest, says nothing of the hole, and goes on (A). */
import assert from 'node:assert/strict';
import * as fs from 'node:fs/promises';
import { test } from 'node:test';
import { UNMETERED } from '../../edge-gateway/link-terms.ts';
import type { LogId } from '../../protocol/ids.ts';
import { RangeSet } from '../../protocol/range-set.ts';
import { message, open, range, segmentsOf, store, temporaryFolder } from './log/support.ts';
import { openSendingSite } from './sending-site.ts';
import { eventually, startSmallCloud } from './small-cloud.ts';

test('what a copy lacks is not declared lost, and holds up nothing', { timeout: 60_000 }, async t => {
  const cloud = await startSmallCloud();
  t.after(() => cloud.close());
  const original = await temporaryFolder(t);
  let logId: LogId | null = null;
  let hole = RangeSet.empty;
  const site = await openSendingSite(t, cloud, UNMETERED, undefined, async directory => {
    const buffer = await open(original, { segmentBytesMax: 1_000 });
    for (const id of range(1, 40)) await store(buffer, [message(id)]);
    await buffer.close();
    logId = buffer.current;
    await fs.cp(original, directory, { recursive: true });
    const [, gone, next] = await segmentsOf(directory, logId);
    await fs.rm(gone!);
    const firstOf = (path: string) => Number(/(\d{16})-/.exec(path)![1]);
    hole = RangeSet.of(firstOf(gone!), firstOf(next!));
  });
  await site.take(20);
  const rest = RangeSet.of(1, 40).difference(hole);
  await eventually(
    'the rest is settled',
    () => rest.difference(cloud.settled.get(logId!) ?? RangeSet.empty).isEmpty,
  );
  await eventually('nothing waits', () => site.uplink.state().waitingMessages === 0);
  await eventually('what is new is settled', () => site.settled() === 20);
  assert.equal(cloud.settled.get(logId!)!.toString(), rest.toString());
  await eventually('the gateway knows', () => site.uplink.state().oldest === null);
});
