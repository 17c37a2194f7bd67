import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LIVE_NEWEST, LIVE_WAITING_MAX, liveEdge } from '../../edge-gateway/lanes.ts';
import {
  acknowledged,
  newSendPlan,
  passed,
  take,
  unsettledOf,
  waiting,
} from '../../edge-gateway/send-plan.ts';

test('a short cut is caught up in order: the edge stays', () => {
  assert.equal(liveEdge(1, 1, 1), 1);
  assert.equal(liveEdge(1, 500, 1500), 1);
  assert.equal(liveEdge(1, 500, 500 + LIVE_WAITING_MAX), 1);
});

test('after a long one the newest go live and the rest is backlog', () => {
  const next = 500 + LIVE_WAITING_MAX + 1;
  assert.equal(liveEdge(1, 500, next), next - LIVE_NEWEST);
});

test('the edge never moves back, and never leaves more in the live lane than it carries', () => {
  fc.assert(
    fc.property(fc.nat(1e6), fc.nat(1e6), fc.nat(1e6), (edge, sent, more) => {
      const firstWaiting = edge + sent;
      const next = firstWaiting + more;
      const now = liveEdge(edge, firstWaiting, next);
      assert.ok(now >= edge);
      assert.ok(next - Math.max(now, firstWaiting) <= LIVE_WAITING_MAX);
      assert.ok(now <= next);
    }),
  );
});

test("each lane's position speaks for that lane only", () => {
  let plan = take(newSendPlan(), { from: 100, to: 200 }, 's1', 'live', 50);
  plan = take(plan, { from: 1, to: 100 }, 's1', 'backfill', 70);
  plan = acknowledged(plan, { from: 100, to: 200 }, 10);
  plan = acknowledged(plan, { from: 1, to: 100 }, 11);
  assert.equal(unsettledOf(plan, 'live').bytes, 50);
  assert.equal(unsettledOf(plan, 'backfill').bytes, 70);
  plan = passed(plan, { created: 's1', sequence: 99 }, 'live');
  assert.equal(waiting(plan, 1, 200).toString(), '{[100,200)}');
  plan = passed(plan, { created: 's1', sequence: 10 }, 'backfill');
  assert.equal(waiting(plan, 1, 200).toString(), '{[100,200)}');
  plan = passed(plan, { created: 's1', sequence: 11 }, 'backfill');
  assert.equal(waiting(plan, 1, 200).toString(), '{[1,200)}');
  assert.equal(unsettledOf(plan, 'backfill').bytes, 0);
});
