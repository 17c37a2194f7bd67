/** The parts of chaos that are pure: the plan, and the incidents that there must be. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readChaosArguments } from '../../deploy/chaos/arguments.ts';
import { CHAOS_RULE, chaosValue, teethOf, wrongIncidents } from '../../deploy/chaos/incidents.ts';
import { type Knower, mayLose } from '../../deploy/chaos/knowledge.ts';
import { pageKey, wrongPages } from '../../deploy/chaos/pages.ts';
import { faultKinds, makePlan } from '../../deploy/chaos/plan.ts';
import { newRecovery } from '../../deploy/chaos/recovery.ts';

const plan = (seed: number, faults: number) =>
  makePlan({ seed, faults, kinds: faultKinds, nodes: 3, sites: 3, gateways: 4, durationMs: 60_000 });

test('a plan follows from its seed, has every kind in turn, and hits what is there', () => {
  assert.deepEqual(plan(7, 60), plan(7, 60));
  assert.notDeepEqual(plan(7, 60), plan(8, 60));
  assert.equal(new Set(plan(7, faultKinds.length).map(({ kind }) => kind)).size, faultKinds.length);
  const times = plan(7, 60).map(({ atMs }) => atMs);
  assert.deepEqual(
    times,
    [...times].sort((a, b) => a - b),
  );
  for (const { target } of plan(7, 500)) assert.ok(target >= 0 && target < 4);
});

test('options that make no sense are refused', () => {
  for (const words of ['--faults x', '--only nothing', '--bug none', '--nodes 0', '--surprise'])
    assert.equal(readChaosArguments(words.split(' '), 1).ok, false, words);
  const read = readChaosArguments(['--only', 'cloud-kill,power-cut', '--bug', 'skip-fence'], 5);
  assert.ok(read.ok);
  assert.deepEqual([read.value.kinds, read.value.bug], [['cloud-kill', 'power-cut'], 'skip-fence']);
});

const journal = { device: 'saw', ownTimestamps: true, published: 100, acknowledged: new Map() };
const all = Array.from({ length: 100 }, (_, index) => index + 1);
const incident = (openedBy: number | null, cleared = true) => ({
  id: `rule:saw:${openedBy}`,
  device: 'saw',
  openedBy,
  cleared,
  lastOver: openedBy === null ? 0 : openedBy + 8,
  span: '',
});
const wrong = (found: ReturnType<typeof incident>[], stored = all) =>
  wrongIncidents([journal], new Map([['saw', stored]]), found);

test('one incident per tooth is right, wherever in the tooth it was opened', () => {
  assert.deepEqual(
    teethOf(0, all).map(({ from, to, cleared }) => [from, to, cleared]),
    [
      [31, 39, true],
      [71, 79, true],
    ],
  );
  for (const n of [31, 39]) assert.ok(chaosValue(0, n) > CHAOS_RULE.threshold);
  assert.deepEqual(wrong([incident(31), incident(75)]), []);
});

test('an incident that is missing, doubled, made up or left open is found', () => {
  assert.match(wrong([incident(31)]).join(), /^no incident: saw from 71 to 79$/);
  assert.match(wrong([incident(31), incident(33), incident(71)]).join(), /^one incident more/);
  assert.match(wrong([incident(31), incident(71), incident(12)]).join(), /^no cause/);
  assert.match(wrong([incident(31), incident(71), incident(null)]).join(), /^no cause/);
  assert.match(wrong([incident(31, false), incident(71)]).join(), /^not cleared/);
  const withoutFirstTooth = all.filter(n => n < 31 || n > 39);
  assert.deepEqual(wrong([incident(71)], withoutFirstTooth), [], 'what never came opens nothing');
});

test('recovery counts from the moment asked about to the last site that is live again', () => {
  const shown = new Map<string, number>();
  const of = (device: string, published: number) => ({ ...journal, device, published });
  const a = of('x', 10);
  const b = of('y', 20);
  const recovery = newRecovery({
    journals: new Map([
      ['one', [a]],
      ['two', [b]],
    ]),
    shown: twin => shown.get(twin) ?? 0,
  });
  recovery.troubled()();
  shown.set('one/x', 11);
  shown.set('two/y', 20);
  recovery.seen();
  assert.equal(recovery.times.length, 0, 'what was published before does not count');
  shown.set('two/y', 21);
  recovery.seen();
  assert.equal(recovery.times.length, 1);

  const over = recovery.siteTroubled('two');
  recovery.troubled()();
  shown.set('one/x', 12);
  recovery.seen();
  assert.equal(recovery.times.length, 2, 'a site with trouble of its own is not waited for');
  recovery.troubled()();
  recovery.troubled()();
  assert.equal(recovery.dropped, 1, 'another trouble in between says nothing about the first');
  over();
});

test('a page that is missing, of nothing, or under two names is found', () => {
  const of = (...keys: string[]) => new Map(keys.map(key => [key, new Set(['msg_1'])]));
  const incidents = [
    { id: 'a', cleared: true, late: false },
    { id: 'b', cleared: true, late: true },
  ];
  const told = of(pageKey('opened', 'a'), pageKey('cleared', 'a'));
  assert.deepEqual(wrongPages(incidents, { heard: told, unnamed: 0 }), []);
  const missing = wrongPages(incidents, { heard: of(pageKey('opened', 'a')), unnamed: 0 });
  assert.deepEqual(missing, ['nobody was told: cleared a']);
  assert.deepEqual(wrongPages(incidents, { heard: of(pageKey('opened', 'a')), unnamed: 1 }), []);
  const made = new Map([...told, ...of(pageKey('opened', 'c'))]);
  assert.match(wrongPages(incidents, { heard: made, unnamed: 0 }).join(), /^people know .* opened c$/);
  const twice = new Map([...told, [pageKey('opened', 'a'), new Set(['msg_1', 'msg_2'])]]);
  assert.match(wrongPages(incidents, { heard: twice, unnamed: 0 }).join(), /^one page under 2 names/);
});

test('what two have lost within seconds is left with the third', () => {
  const lostAt = new Map<Knower, number>([['owner', 1000]]);
  assert.equal(mayLose('redis-flushed', lostAt, 2000), true);
  lostAt.set('redis', Number.POSITIVE_INFINITY);
  assert.equal(mayLose('stream-deleted', lostAt, 2000), false);
  assert.equal(mayLose('cloud-kill', lostAt, 2000), true);
  assert.equal(mayLose('stream-deleted', lostAt, 12_000), true);
  assert.equal(mayLose('broker-kill', lostAt, 2000), true);
});
