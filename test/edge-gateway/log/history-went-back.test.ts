/** A history that was restored to an earlier state: what it lacks by then is kept until it has it again (A, R). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RangeSet } from '../../../protocol/range-set.ts';
import { idOf, infoOf, message, open, range, readAll, store, temporaryFolder } from './support.ts';

test('what history does not have any more is not given back, also after restarts and long past its time', async t => {
  const directory = await temporaryFolder(t);
  let now = 1_700_000_000_000;
  const options = { segmentBytesMax: 500, nowMs: () => now, keepSettledMs: 1_000 };
  const first = await open(directory, options);
  const { current } = first;
  for (const id of range(1, 30)) await store(first, [message(id)]);
  first.settle(current, RangeSet.of(1, 30));
  assert.equal(first.stats().messagesUnsettled, 0);
  first.settle(current, RangeSet.of(1, 12), true);
  assert.equal(infoOf(first, current).settled.toString(), RangeSet.of(1, 12).toString());
  assert.equal(first.stats().messagesUnsettled, 18);
  await first.close();

  now += 5_000;
  const second = await open(directory, options);
  second.settle(current, RangeSet.of(1, 12), true);
  await second.close();
  now += 5_000;
  const third = await open(directory, options);
  const kept = (await readAll(third, current)).map(idOf);
  assert.deepEqual(
    kept.filter(id => id >= 12),
    range(12, 30),
  );
  third.settle(current, RangeSet.of(1, 30), true);
  assert.equal(third.stats().messagesUnsettled, 0);
  await third.close();
});

test('a part of what is settled, told as such, takes nothing back', async t => {
  const buffer = await open(await temporaryFolder(t));
  t.after(() => buffer.close());
  for (const id of range(1, 10)) await store(buffer, [message(id)]);
  buffer.settle(buffer.current, RangeSet.of(1, 8));
  buffer.settle(buffer.current, RangeSet.of(3, 5));
  assert.equal(infoOf(buffer, buffer.current).settled.toString(), RangeSet.of(1, 8).toString());
});
