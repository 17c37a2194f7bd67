/** What goes wrong in a run of the lab follows from the seed alone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readLabArguments } from '../../deploy/lab/arguments.ts';
import { type FaultKind, faultKinds, linkFaults, makePlan, partFaults } from '../../deploy/lab/plan.ts';
import { planLines } from '../../deploy/lab/report.ts';
import { isFair, weatherFault } from '../../deploy/local/link-weather.ts';

const seeds = fc.integer({ min: 0, max: 2 ** 32 - 1 });

test('the same seed makes the same plan, another one another', () => {
  fc.assert(
    fc.property(seeds, fc.integer({ min: 10_000, max: 300_000 }), (seed, durationMs) => {
      const plan = makePlan({ seed, durationMs, faults: faultKinds });
      assert.deepEqual(makePlan({ seed, durationMs, faults: faultKinds }), plan);
    }),
  );
  // Short plans may be the same by chance, or empty.
  const long = [1, 2, 3, 4].map(seed => makePlan({ seed, durationMs: 180_000, faults: faultKinds }));
  assert.equal(new Set(long.map(plan => JSON.stringify(plan))).size, long.length);
});

test('each hand does one thing at a time, within the run, and only what was asked for', () => {
  const some = fc.subarray([...faultKinds]);
  fc.assert(
    fc.property(seeds, fc.integer({ min: 1000, max: 300_000 }), some, (seed, durationMs, faults) => {
      const plan = makePlan({ seed, durationMs, faults });
      for (const steps of [plan.link, plan.parts]) {
        let freeAtMs = 0;
        for (const { atMs, forMs } of steps) {
          assert.ok(atMs >= freeAtMs && forMs >= 0);
          freeAtMs = atMs + forMs;
        }
        assert.ok(freeAtMs <= durationMs + 1);
      }
      for (const step of [...plan.link, ...plan.parts]) {
        const asked = step.kind === 'log-image' ? 'log-restored' : step.kind;
        assert.ok(faults.includes(asked as FaultKind));
        if (step.kind === 'bad-weather') {
          assert.equal(weatherFault(step.weather), null);
          assert.ok(!isFair(step.weather));
        }
      }
      assert.equal(planLines(plan).length, plan.link.length + plan.parts.length);
    }),
  );
});

test('three minutes hold every fault, and an image before it is put back', () => {
  for (let seed = 1; seed <= 10; seed++) {
    const plan = makePlan({ seed, durationMs: 180_000, faults: faultKinds });
    const kinds = plan.parts.map(({ kind }) => kind);
    assert.deepEqual(
      partFaults.filter(kind => !kinds.includes(kind)),
      [],
      `seed ${seed}`,
    );
    assert.ok(kinds.indexOf('log-image') < kinds.indexOf('log-restored'));
    const links = new Set(plan.link.map(({ kind }) => kind));
    assert.equal(links.size, linkFaults.length, `seed ${seed}`);
  }
});

test('arguments are read or refused with the reason', () => {
  const read = (...words: string[]) => readLabArguments(words, 7);
  const usual = read();
  assert.ok(usual.ok);
  assert.deepEqual([usual.value.seed, usual.value.durationMs, usual.value.faults], [7, 60_000, faultKinds]);
  const given = read('--minutes', '3', '--seed', '12', '--loss', '0.02', '--faults', 'power-cut,link-cut');
  assert.ok(given.ok);
  assert.equal(given.value.weather.lossRate, 0.02);
  assert.deepEqual(given.value.faults, ['power-cut', 'link-cut']);
  const none = read('--faults', 'none');
  assert.ok(none.ok && none.value.faults.length === 0);
  for (const [words, what] of [
    [['--minutes', '0'], /--minutes 0/],
    [['--seed', '-1'], /--seed/],
    [['--faults', 'earthquake'], /no earthquake/],
    [['--loss', '1.5'], /loss rate/],
    [['--unknown'], /unknown/],
  ] as const) {
    const refused = read(...words);
    assert.ok(!refused.ok);
    assert.match(refused.problem, what);
  }
});
