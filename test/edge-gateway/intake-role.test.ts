/**
 * Which gateway of a group takes the messages: the single steps, and then groups of gateways at a broker that is
 * restarted, frozen, killed and blinded at random, which must come to rest with exactly one of them active (R).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { newRole, type RoleEvent, type RoleState, stepRole } from '../../edge-gateway/intake/role.ts';

const TAKE_OVER_AFTER_MS = 15_000;

function walk(events: readonly (readonly [atMs: number, event: RoleEvent])[], chance = 0.5) {
  let state: RoleState = newRole(0);
  const connects: number[] = [];
  for (const [nowMs, event] of events) {
    const step = stepRole(state, event, { nowMs, chance, takeOverAfterMs: TAKE_OVER_AFTER_MS });
    state = step.state;
    if (step.connect) connects.push(nowMs);
  }
  return { state, connects };
}

const watching: RoleEvent = { is: 'watching' };
const peer = (role: 'active' | 'standby' | null, retained = false): RoleEvent => ({
  is: 'peer',
  gateway: 'gw-2',
  role,
  retained,
});
/** A tick each 100 ms of [from, to). */
const ticks = (from: number, to: number): [number, RoleEvent][] =>
  Array.from({ length: Math.ceil((to - from) / 100) }, (_, i) => [from + i * 100, { is: 'tick' }]);

test('alone: it connects once it has heard that nobody is there, and not before it hears anything', () => {
  assert.deepEqual(walk(ticks(0, 60_000)).connects, []);
  assert.deepEqual(walk([[0, watching], ...ticks(0, 5000)]).connects, [500]);
});

test('another one is active: it stands by as long as that one is heard', () => {
  const beats: [number, RoleEvent][] = ticks(0, 100_000).flatMap(([at, tick]) =>
    at % 5000 === 0
      ? [
          [at, peer('active')],
          [at, tick],
        ]
      : [[at, tick]],
  );
  assert.deepEqual(walk([[0, peer('active', true)], [0, watching], ...beats]).connects, []);
});

test('the will of the active one: at once, spread over half a second', () => {
  const start: [number, RoleEvent][] = [[0, peer('active', true)], [0, watching], ...ticks(0, 10_000)];
  const end: [number, RoleEvent][] = [[10_000, peer(null)], ...ticks(10_000, 12_000)];
  assert.deepEqual(walk([...start, ...end], 0).connects, [10_000]);
  assert.deepEqual(walk([...start, ...end], 0.999).connects, [10_500]);
});

test('its silence: after take-over time, also when all that is known of it was retained', () => {
  assert.deepEqual(walk([[0, peer('active', true)], [0, watching], ...ticks(0, 20_000)]).connects, [15_000]);
  assert.deepEqual(
    walk([
      [0, watching],
      [0, peer('active')],
      ...ticks(0, 9000),
      [9000, peer('active')],
      ...ticks(9000, 30_000),
    ]).connects,
    [24_000],
  );
});

test('a broker that comes back: the standby waits for the active one, which comes back at once', () => {
  const away: [number, RoleEvent][] = [[10_000, { is: 'blind' }], ...ticks(10_000, 40_000)];
  const asStandby = walk([
    [0, peer('active', true)],
    [0, watching],
    ...ticks(0, 10_000),
    ...away,
    // The broker sent the will at its own end, and has it retained.
    [40_000, peer(null, true)],
    [40_000, watching],
    ...ticks(40_000, 60_000),
  ]);
  assert.deepEqual(asStandby.connects, [55_000]);
  const asActive = walk([
    [0, watching],
    ...ticks(0, 1000),
    [1000, { is: 'up' }],
    ...ticks(1000, 10_000),
    [10_000, { is: 'lost' }],
    ...away,
    [40_000, watching],
    ...ticks(40_000, 45_000),
  ]);
  assert.deepEqual(asActive.connects, [500, 40_300]);
});

test('thrown out: it stands by, and does not connect for the take-over time whatever it hears', () => {
  const { state, connects } = walk([
    [0, watching],
    ...ticks(0, 1000),
    [1000, { is: 'up' }],
    ...ticks(1000, 2000),
    [2000, { is: 'thrown out' }],
    ...ticks(2000, 16_900),
  ]);
  assert.equal(state.role, 'standby');
  assert.deepEqual(connects, [500]);
});

test('a process that was stopped first listens to what it has missed', () => {
  const stopped = walk([
    [0, peer('active', true)],
    [0, watching],
    ...ticks(0, 5000),
    // Stopped for a minute: the timer is seen before the socket.
    [65_000, { is: 'tick' }],
    [65_001, peer('active')],
    ...ticks(65_100, 79_000),
  ]);
  assert.deepEqual(stopped.connects, []);
});

test('a session that cannot be had: tried again, then another gateway gets its turn', () => {
  let state: RoleState = newRole(0);
  const connects: number[] = [];
  const tell = (nowMs: number, event: RoleEvent) => {
    const step = stepRole(state, event, { nowMs, chance: 0.5, takeOverAfterMs: TAKE_OVER_AFTER_MS });
    state = step.state;
    return step.connect;
  };
  tell(0, watching);
  for (const [nowMs, tick] of ticks(0, 60_000)) {
    if (!tell(nowMs, tick)) continue;
    connects.push(nowMs);
    tell(nowMs, { is: 'lost' });
  }
  const early = connects.filter(at => at < 20_000);
  assert.equal(early.length, 16, `${connects}`);
  const pause = connects.find(at => at > 20_000)! - early.at(-1)!;
  assert.ok(pause >= 2 * TAKE_OVER_AFTER_MS, `${connects}`);
});

type Fault =
  | { readonly is: 'kill' | 'start' | 'freeze' | 'thaw' | 'blind'; readonly gateway: number }
  | { readonly is: 'broker down' | 'broker up' };

/**
 * A site with one broker: who has the session, what is retained, who hears whom. Time goes in steps of 100 ms.
 * @param says whether the broker tells a client that its session was taken over, or just ends the connection
 */
function newSite(count: number, says: boolean, random: () => number) {
  let nowMs = 0;
  let brokerUp = true;
  let holder: number | null = null;
  const retained = new Map<number, 'active' | 'standby' | null>();
  const gateways = Array.from({ length: count }, () => newGateway());

  function newGateway() {
    return {
      state: newRole(nowMs),
      alive: true,
      frozenSinceMs: null as number | null,
      /** Presence at the broker: from then on, once that time is there. */
      presentAtMs: nowMs as number | null,
      inbox: [] as RoleEvent[],
      takeOvers: 0,
    };
  }

  function say(from: number, role: 'active' | 'standby' | null, retain: boolean): void {
    if (!brokerUp) return;
    if (retain) retained.set(from, role);
    for (const [index, gateway] of gateways.entries()) {
      if (index === from || !gateway.alive || !gateway.state.watching) continue;
      gateway.inbox.push({ is: 'peer', gateway: `g${from}`, role, retained: false });
    }
  }

  function tell(index: number, event: RoleEvent): void {
    const gateway = gateways[index]!;
    const before = gateway.state.role;
    const step = stepRole(gateway.state, event, {
      nowMs,
      chance: random(),
      takeOverAfterMs: TAKE_OVER_AFTER_MS,
    });
    gateway.state = step.state;
    if (before === 'standby' && gateway.state.role === 'active') gateway.takeOvers++;
    if (before === 'active' && gateway.state.role === 'standby' && gateway.state.watching)
      say(index, 'standby', true);
    if (!step.connect) return;
    if (!brokerUp) return void gateway.inbox.push({ is: 'lost' });
    if (holder !== null && holder !== index)
      gateways[holder]!.inbox.push({ is: says ? 'thrown out' : 'lost' });
    holder = index;
    gateway.inbox.push({ is: 'up' });
    say(index, 'active', true);
  }

  /** The broker closes the presence, and its will is sent. */
  function missed(index: number): void {
    const gateway = gateways[index]!;
    if (!gateway.state.watching && gateway.presentAtMs === null) return;
    gateway.presentAtMs = null;
    if (gateway.state.watching) gateway.inbox.push({ is: 'blind' });
    say(index, null, true);
  }

  return {
    gateways,
    get holder() {
      return holder;
    },
    apply(fault: Fault): void {
      if (fault.is === 'broker down' && brokerUp) {
        brokerUp = false;
        for (const gateway of gateways) {
          gateway.presentAtMs = null;
          gateway.inbox.push({ is: 'blind' });
        }
        if (holder !== null) gateways[holder]!.inbox.push({ is: 'lost' });
        holder = null;
      } else if (fault.is === 'broker up') brokerUp = true;
      if (!('gateway' in fault)) return;
      const index = fault.gateway % count;
      const gateway = gateways[index]!;
      if (fault.is === 'kill' && gateway.alive) {
        gateway.alive = false;
        if (holder === index) holder = null;
        missed(index);
      } else if (fault.is === 'start' && !gateway.alive) gateways[index] = newGateway();
      else if (fault.is === 'freeze') gateway.frozenSinceMs ??= nowMs;
      else if (fault.is === 'thaw') gateway.frozenSinceMs = null;
      else if (fault.is === 'blind' && gateway.alive) missed(index);
    },
    run(ms: number): void {
      for (const end = nowMs + ms; nowMs < end; nowMs += 100) {
        for (const [index, gateway] of gateways.entries()) {
          if (!gateway.alive) continue;
          if (gateway.frozenSinceMs !== null) {
            if (nowMs - gateway.frozenSinceMs > 15_000 && brokerUp) missed(index);
            continue;
          }
          tell(index, { is: 'tick' });
          for (const event of gateway.inbox.splice(0)) tell(index, event);
          if (!brokerUp) continue;
          if (!gateway.state.watching) {
            gateway.presentAtMs ??= nowMs + 500 + Math.floor(random() * 1000);
            if (nowMs < gateway.presentAtMs) continue;
            for (const [of, role] of retained) {
              if (of !== index) tell(index, { is: 'peer', gateway: `g${of}`, role, retained: true });
            }
            tell(index, { is: 'watching' });
            say(index, gateway.state.role, true);
          } else if (nowMs % 5000 === 0) say(index, gateway.state.role, false);
        }
      }
    },
  };
}

test('whatever happens, it comes to rest: one is active, it has the session, and nothing changes any more', () => {
  const index = fc.integer({ min: 0, max: 2 });
  const fault: fc.Arbitrary<Fault> = fc.oneof(
    fc.record({ is: fc.constantFrom('kill', 'start', 'freeze', 'thaw', 'blind'), gateway: index }),
    fc.record({ is: fc.constantFrom('broker down', 'broker up') }),
  );
  const script = fc.array(fc.tuple(fault, fc.integer({ min: 1, max: 400 })), { maxLength: 12 });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 3 }),
      fc.boolean(),
      script,
      fc.integer(),
      (count, says, faults, seed) => {
        let state = seed >>> 0;
        const random = () => {
          state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
          return state / 2 ** 32;
        };
        const site = newSite(count, says, random);
        for (const [what, steps] of faults) {
          site.apply(what);
          site.run(steps * 100);
        }
        site.apply({ is: 'broker up' });
        for (let gateway = 0; gateway < count; gateway++) site.apply({ is: 'thaw', gateway });
        site.apply({ is: 'start', gateway: 0 });
        const sum = () => site.gateways.reduce((all, { takeOvers }) => all + takeOvers, 0);
        const before = sum();
        site.run(120_000);
        const settled = sum();
        site.run(300_000);
        const alive = site.gateways.filter(gateway => gateway.alive);
        const active = alive.filter(gateway => gateway.state.role === 'active');
        assert.equal(active.length, 1, 'one is active');
        assert.equal(active[0]!.state.session, 'up');
        assert.equal(site.gateways[site.holder!], active[0], 'and it has the session');
        assert.equal(sum(), settled, 'nothing changes hands any more');
        assert.ok(settled - before <= 3, `${settled - before} take-overs until it was quiet`);
      },
    ),
    { numRuns: 500 },
  );
});
