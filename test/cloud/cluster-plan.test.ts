/** Which node takes which partition, and what a node does about it, without servers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ClusterView, nextSteps } from '../../cloud/cluster/plan.ts';
import { ownerOf } from '../../cloud/cluster/rendezvous.ts';

const PARTITIONS = Array.from({ length: 64 }, (_, id) => id);

test('a node that leaves moves its own partitions only, and one that joins takes only what becomes its own', () => {
  const names = fc.uniqueArray(fc.stringMatching(/^[a-z0-9-]{1,12}$/), { minLength: 2, maxLength: 7 });
  fc.assert(
    fc.property(names, nodes => {
      const [gone, ...rest] = nodes as [string, ...string[]];
      for (const partition of PARTITIONS) {
        const before = ownerOf(partition, nodes);
        assert.equal(ownerOf(partition, [...nodes].reverse()), before, 'the order of the nodes says nothing');
        if (before !== gone) assert.equal(ownerOf(partition, rest), before);
      }
    }),
  );
});

test('three nodes share the partitions about evenly; without nodes nobody owns one', () => {
  const counts = new Map<string | null, number>();
  for (let partition = 0; partition < 3000; partition++) {
    const owner = ownerOf(partition, ['a', 'b', 'c']);
    counts.set(owner, (counts.get(owner) ?? 0) + 1);
  }
  for (const count of counts.values()) assert.ok(count > 850 && count < 1150, `${count} of 3000`);
  assert.equal(counts.size, 3);
  assert.equal(ownerOf(0, []), null);
});

const node = (id: string, more: Partial<ClusterView['nodes'][number]> = {}) => ({
  id,
  name: id,
  actors: true,
  draining: false,
  heartbeatAgeMs: 0,
  ...more,
});
const view = (nodes: ClusterView['nodes'], owners: (string | null)[]): ClusterView => ({
  nodes,
  partitions: owners.map((owner, id) => ({ id, epoch: 10 + id, owner })),
});
const nothing = { claim: [], handOver: [], lost: [], release: [] };

test('what is free, or a dead node had, is claimed by its taker; what a living one has is not', () => {
  const alone = view([node('me')], [null, 'dead', 'me']);
  assert.deepEqual(nextSteps('me', alone, new Map()), { ...nothing, claim: [0, 1, 2] });
  const owners = PARTITIONS.map(() => 'other');
  const two = view([node('me'), node('other')], owners);
  assert.deepEqual(nextSteps('me', two, new Map()), nothing);
});

test('whoever drains, or has no actors, takes nothing; what it holds goes to who does', () => {
  const held = new Map([[0, 10]]);
  const draining = view([node('me', { draining: true }), node('other')], ['me', null]);
  assert.deepEqual(nextSteps('me', draining, held), { ...nothing, handOver: [0] });
  const last = view([node('me', { draining: true }), node('web', { actors: false })], ['me']);
  assert.deepEqual(nextSteps('me', last, held), nothing, 'with nobody to take it, it stays');
});

test('another epoch than ours: lost, whatever else the table says (D)', () => {
  const taken = view([node('me')], ['other']);
  assert.deepEqual(nextSteps('me', taken, new Map([[0, 9]])), { ...nothing, lost: [0] });
});

test('ours by the table and not held, as after an answer that was lost: claimed again, or released for its taker', () => {
  const nodes = [node('me'), node('other')];
  const both = view(
    nodes,
    PARTITIONS.map(() => 'me'),
  );
  const { claim, release } = nextSteps('me', both, new Map());
  assert.deepEqual(
    [...claim, ...release].sort((a, b) => a - b),
    PARTITIONS,
  );
  for (const id of release) assert.equal(ownerOf(id, ['me', 'other']), 'other');
  assert.ok(claim.length > 10 && release.length > 10);
});

test('every node follows its plan: in the end each partition has one owner, its taker', () => {
  const ids = ['n1', 'n2', 'n3'];
  const step = fc.record({ who: fc.nat(2), alive: fc.tuple(fc.boolean(), fc.boolean(), fc.boolean()) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), steps => {
      const owners: (string | null)[] = PARTITIONS.map(() => null);
      const epochs = PARTITIONS.map(() => 0);
      const held = ids.map(() => new Map<number, number>());
      const turn = (who: number, alive: readonly boolean[]) => {
        const me = ids[who]!;
        const nodes = ids.filter((_, index) => alive[index]).map(id => node(id));
        const partitions = owners.map((owner, id) => ({ id, epoch: epochs[id]!, owner }));
        const next = nextSteps(me, { nodes, partitions }, held[who]!);
        for (const id of next.lost) held[who]!.delete(id);
        for (const id of [...next.handOver, ...next.release]) {
          held[who]!.delete(id);
          owners[id] = null;
        }
        for (const id of next.claim) {
          owners[id] = me;
          epochs[id]!++;
          held[who]!.set(id, epochs[id]!);
        }
      };
      for (const { who, alive } of steps)
        turn(
          who,
          alive.map((lives, index) => lives || index === who),
        );
      for (let round = 0; round < 3; round++) for (const who of [0, 1, 2]) turn(who, [true, true, true]);
      for (const id of PARTITIONS) {
        const holders = ids.filter((_, index) => held[index]!.get(id) === epochs[id]);
        assert.deepEqual(holders, [ownerOf(id, ids)]);
      }
    }),
  );
});

test('nothing is handed to a node that is only in a table from a backup; what it should have is served on', () => {
  const held = new Map([[0, 10]]);
  const taker = (names: string[]) => ownerOf(0, names);
  const name = PARTITIONS.map(i => `node-${i}`).find(one => taker(['me', one]) === one)!;
  const ghost = view([node('me'), node(name, { heartbeatAgeMs: 60_000 })], ['me']);
  assert.deepEqual(nextSteps('me', ghost, held), nothing);
  const living = view([node('me'), node(name)], ['me']);
  assert.deepEqual(nextSteps('me', living, held), { ...nothing, handOver: [0] });
});
