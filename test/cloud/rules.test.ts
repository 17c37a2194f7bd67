/** Each kind of rule: what opens it, what clears it, durations, scopes, and the words of its incidents. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IncidentTransition } from '../../cloud/actors/incident.ts';
import { HEARD, judgeLink } from '../../cloud/actors/link.ts';
import type { AbsenceRule, AnomalyRule, RangeRule, RateRule, Rule } from '../../cloud/actors/rule.ts';
import { indexRules } from '../../cloud/actors/rule-index.ts';
import { deviationOf, type Statistics, withValue } from '../../cloud/actors/statistics.ts';
import { newTwin, receive, type TwinState } from '../../cloud/actors/twin.ts';
import { DEVICE, reading, rulesOf, SITE, T0, tooHot } from './twins.ts';

const scope = { site: null, device: null, deviceType: null, tag: null, severity: 'warning' } as const;
const range: RangeRule = {
  ...scope,
  id: 'range',
  kind: 'range',
  metric: 't',
  low: 10,
  high: 20,
  hysteresis: 1,
  forMs: 0,
};
const rate: RateRule = {
  ...scope,
  id: 'rate',
  kind: 'rate',
  metric: 't',
  direction: 'rising',
  threshold: 6,
  perMs: 60_000,
  hysteresis: 0,
  forMs: 0,
};
const absence: AbsenceRule = { ...scope, id: 'gone', kind: 'absence', metric: null, forMs: 60_000 };
const anomaly: AnomalyRule = {
  ...scope,
  id: 'odd',
  kind: 'anomaly',
  metric: 't',
  deviations: 6,
  window: 100,
  warmup: 50,
  floor: 0,
  hysteresis: 0,
  forMs: 0,
};

type Step =
  | [seconds: number, value: number]
  | { readonly clock: number; readonly hearingSince?: number | null };

/** Folds values that arrive at once, and heartbeats, one after the other. Times are seconds after T0. */
function run(rules: readonly Rule[], steps: readonly Step[], metric = 't') {
  const ofTwin = rulesOf(rules);
  let twin: TwinState = newTwin(SITE, DEVICE);
  const told: IncidentTransition[] = [];
  for (const [index, step] of steps.entries()) {
    const outcome = Array.isArray(step)
      ? receive(twin, {
          type: 'reading',
          rules: ofTwin,
          reading: reading(
            { [metric]: step[1] },
            { at: T0 + step[0] * 1000, receivedAt: T0 + step[0] * 1000, sequence: index },
          ),
        })
      : receive(twin, {
          type: 'clock',
          gateway: 'g1',
          rules: ofTwin,
          clock: {
            completeUntil: T0 + step.clock * 1000,
            hearingSince: step.hearingSince === undefined ? 0 : step.hearingSince,
            standsIn: false,
          },
        });
    twin = outcome.state;
    told.push(...outcome.effects.map(effect => effect.transition));
  }
  return { twin, told };
}

const said = (told: readonly IncidentTransition[]) =>
  told.map(({ openedAt, clearedAt, late }) =>
    [
      `${(openedAt - T0) / 1000}`,
      clearedAt === null ? 'open' : `${(clearedAt - T0) / 1000}`,
      late ? 'late' : '',
    ]
      .join(' ')
      .trim(),
  );

test('a range opens on both sides and clears within its hysteresis', () => {
  const { told } = run(
    [range],
    [
      [0, 15],
      [1, 21],
      [2, 19.5],
      [3, 19],
      [4, 9],
      [5, 10.5],
      [6, 11],
    ],
  );
  assert.deepEqual(said(told), ['1 open', '1 3', '4 open', '4 6']);
  assert.equal(told[0]!.summary, 't 21 is outside of 10 to 20');
  assert.equal(told[0]!.threshold, null);
});

test('a rate is the change over the time between two readings, in its direction', () => {
  const steps: Step[] = [
    [0, 10],
    [60, 16],
    [120, 22.1],
    [180, 22],
    [181, 10],
  ];
  assert.deepEqual(said(run([rate], steps).told), ['120 open', '120 180']);
  assert.deepEqual(said(run([{ ...rate, direction: 'falling' }], steps).told), ['181 open']);
  assert.deepEqual(said(run([{ ...rate, direction: 'either', threshold: 7 }], steps).told), ['181 open']);
});

test('two readings of the same time have no rate', () => {
  assert.deepEqual(
    run(
      [rate],
      [
        [0, 10],
        [0, 1000],
      ],
    ).told,
    [],
  );
});

test('a duration is judged by the clock of the gateway, and begins anew when the condition breaks', () => {
  const rule = { ...tooHot, metric: 't', forMs: 60_000 };
  assert.deepEqual(run([rule], [[0, 31], [30, 35], { clock: 59 }]).told, []);
  const held = run([rule], [[0, 31], [30, 35], { clock: 60 }]);
  assert.deepEqual(said(held.told), ['0 open']);
  assert.equal(held.told[0]!.summary, 't 31 is above 30 for 1 min');
  assert.equal(held.told[0]!.id, `too-hot:${SITE}/${DEVICE}:log-b:0.1`);
  assert.deepEqual(run([rule], [[0, 31], [30, 29], [40, 31], { clock: 99 }]).told, []);
  assert.deepEqual(said(run([rule], [[0, 31], [30, 29], [40, 31], { clock: 100 }]).told), ['40 open']);
});

test('what held for long and was over before the clock had come so far is left behind closed', () => {
  const rule = { ...tooHot, metric: 't', forMs: 60_000 };
  const { twin, told } = run([rule], [[0, 31], [62, 10], [64, 11], { clock: 65 }]);
  assert.deepEqual(said(told), ['0 62 late']);
  assert.equal(twin.memory.late.size + twin.memory.runs.size + twin.memory.pending.size, 0);
});

test('what goes up and down faster than the word is complete is remembered for as long as something may come, no longer', () => {
  const rule = { ...tooHot, metric: 't' };
  const steps: Step[] = [];
  let most = 0;
  for (let second = 0; second < 400; second++) {
    steps.push([second, second % 4 === 2 ? 31 : 20]);
    if (second % 5 === 0) steps.push({ clock: second - 5 });
    if (second % 40 === 0) {
      const { runs, recent } = run([rule], steps).twin.memory;
      most = Math.max(most, runs.get(rule.id)?.length ?? 0, recent.get(rule.id)?.length ?? 0);
    }
  }
  assert.ok(most > 0 && most < 10, `${most} runs`);
  const { told } = run([rule], steps);
  assert.equal(told.length, 200);
  assert.ok(
    told.every(({ late, openedAt, clearedAt }) => !late && (clearedAt ?? openedAt) - openedAt <= 1000),
  );
});

test('a device is absent when the clock has passed, not when nothing came', () => {
  const steps: Step[] = [[0, 1], { clock: 59 }, { clock: 60 }, { clock: 100 }, [110, 2], { clock: 120 }];
  const { told } = run([absence], steps);
  assert.deepEqual(said(told), ['60 open', '60 110']);
  assert.equal(told[0]!.id, `gone:${SITE}/${DEVICE}:log-b:0.1`);
  assert.equal(told[0]!.summary, `${DEVICE} has not been heard for 1 min`);
});

test('a gateway that does not hear, or not for long enough, knows of no absence', () => {
  assert.deepEqual(run([absence], [[0, 1], { clock: 600, hearingSince: null }]).told, []);
  const back = T0 + 590_000;
  assert.deepEqual(run([absence], [[0, 1], { clock: 600, hearingSince: back }]).told, []);
  assert.deepEqual(said(run([absence], [[0, 1], { clock: 651, hearingSince: back }]).told), ['650 open']);
});

test('absence of a metric, though the device speaks of others', () => {
  const ofTwin = rulesOf([{ ...absence, metric: 't' }]);
  let twin = newTwin(SITE, DEVICE);
  const fold = (metrics: Record<string, number>, seconds: number) => {
    const at = T0 + seconds * 1000;
    const message = reading(metrics, { at, receivedAt: at, sequence: seconds });
    twin = receive(twin, { type: 'reading', rules: ofTwin, reading: message }).state;
  };
  fold({ t: 1, u: 1 }, 0);
  fold({ u: 2 }, 50);
  const clock = { completeUntil: T0 + 60_000, hearingSince: 0, standsIn: false };
  const { effects } = receive(twin, { type: 'clock', gateway: 'g1', clock, rules: ofTwin });
  assert.deepEqual(said(effects.map(({ transition }) => transition)), ['60 open']);
  assert.equal(effects[0]!.transition.metric, 't');
});

test('an anomaly is far off what is usual, after the warm-up; outliers move little, a new level becomes usual', () => {
  const noise = (index: number) => 100 + [0, 1, -1, 2, -2, 0.5, -0.5][index % 7]!;
  const usual = Array.from({ length: 60 }, (_, index): Step => [index, noise(index)]);
  assert.deepEqual(run([anomaly], [...usual.slice(0, 49), [49, 150]]).told, [], 'not within the warm-up');
  const { told } = run([anomaly], [...usual, [60, 150], [61, 100]]);
  assert.deepEqual(said(told), ['60 open', '60 61']);

  let statistics: Statistics | undefined;
  for (let index = 0; index < 1000; index++) statistics = withValue(statistics, noise(index), 100);
  const before = statistics!;
  const after = withValue(before, 1e9, 100);
  assert.ok(after.centre - before.centre < 0.1 && after.spread < before.spread * 1.1);
  for (let index = 0; index < 500; index++) statistics = withValue(statistics, 200 + noise(index), 100);
  assert.ok(Math.abs(deviationOf(statistics!, 300, 0)) < 1.5, JSON.stringify(statistics));
});

test('statistics stay numbers, whatever the values', () => {
  let statistics: Statistics | undefined;
  for (const value of [1e308, -1e308, 1e308, 5e-324, 0, -0, 1e308, -1e308, 3, 3, 3, 3, 3]) {
    statistics = withValue(statistics, value, 20);
    assert.ok(Number.isFinite(statistics.centre) && Number.isFinite(statistics.spread));
    assert.ok(!Number.isNaN(deviationOf(statistics, value, 0)));
  }
});

test('a rule applies where all that it names fits', () => {
  const at = (part: Partial<Rule>) => ({ ...tooHot, ...part }) as Rule;
  const index = indexRules(
    [
      at({ id: 'all' }),
      at({ id: 'site', site: 's' }),
      at({ id: 'device', device: 'd' }),
      at({ id: 'type', deviceType: 'pump' }),
      at({ id: 'tag', tag: 'roof' }),
      at({ id: 'both', site: 's', tag: 'roof' }),
    ],
    1,
  );
  const of = (site: string, device: string, type: string | null = null, tags: string[] = []) =>
    (index.of(site, device, { type, tags, groups: [] }).byMetric.get('temperature')?.values ?? [])
      .map(rule => rule.id)
      .sort();
  assert.deepEqual(of('x', 'y'), ['all']);
  assert.deepEqual(of('s', 'y'), ['all', 'site']);
  assert.deepEqual(of('x', 'd'), ['all', 'device']);
  assert.deepEqual(of('x', 'y', 'pump'), ['all', 'type']);
  assert.deepEqual(of('x', 'y', 'fan', ['wall', 'roof']), ['all', 'tag']);
  assert.deepEqual(of('s', 'd', 'pump', ['roof']), ['all', 'both', 'device', 'site', 'tag', 'type']);
  const plain = index.of('x', 'y', null);
  assert.equal(index.of('x', 'z', null), plain, 'devices that have nothing of their own share their rules');
  const same = { type: 'pump', tags: [], groups: [] };
  assert.equal(index.of('x', 'a', same), index.of('x', 'b', { ...same }));
});

test('a dead link is one incident, with one id whoever finds it', () => {
  const news = { site: 's', gateway: 'g', silentSince: T0, completeUntil: T0 - 4, now: T0 + 20_000 };
  const dead = judgeLink(HEARD, news);
  assert.equal(dead.transition?.id, `link:s/g:${T0 - 4}`);
  assert.equal(judgeLink(dead.state, { ...news, now: T0 + 30_000 }).transition, null);
  const back = judgeLink(dead.state, { ...news, silentSince: null, now: T0 + 40_000 });
  assert.deepEqual(back.transition, { ...dead.transition, clearedAt: T0 + 40_000 });
  assert.equal(judgeLink(back.state, { ...news, silentSince: null }).transition, null);
});
