/**
 * Carries a plan out. Two hands: the link's, and the one for all other parts (`plan.ts`). What a step began it ends itself,
 * also when the run is aborted.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Weather } from '../local/link-weather.ts';
import type { FaultKind, LinkStep, PartStep, Plan } from './plan.ts';
import type { LabSite } from './site.ts';

export interface FaultLog {
  readonly done: Partial<Record<FaultKind, number>>;
  /** When the broker was killed, milliseconds since 1970. */
  readonly brokerKilledAt: readonly number[];
}

/** Between "forget nothing from now on" and the kill: it dies in mid-stream all the same. */
const KEPT_FOR_MS = 150;
/** Before an earlier image is put back: the gateway gets rid of its backlog, then history of its own. */
const DRAIN_MS = 20_000;
const STORED_MS = 10_000;
/** Messages that a gateway sends while it stops. */
const FEW = 500;

/**
 * @param options.allStored whether all that the gateway ever acknowledged to the broker is in history
 * @param options.say is told in one line what happens
 */
export async function carryOut(
  plan: Plan,
  site: LabSite,
  options: {
    weather: Weather;
    allStored: () => Promise<boolean>;
    say: (line: string) => void;
    signal: AbortSignal;
  },
): Promise<FaultLog> {
  const { say, signal } = options;
  const { link, gateway, stack, broker } = site;
  const done: Partial<Record<FaultKind, number>> = {};
  const brokerKilledAt: number[] = [];
  const startedAt = performance.now();
  const pause = (ms: number) => sleep(ms, undefined, { signal });
  const until = (atMs: number) => pause(Math.max(0, startedAt + atMs - performance.now()));
  const linkInUse = newLock();

  async function atLink(step: LinkStep): Promise<void> {
    const seconds = inSeconds(step.forMs);
    try {
      if (step.kind === 'link-cut') {
        say(`link cut for ${seconds}`);
        link.cut();
      } else if (step.kind === 'link-half-open') {
        say(`link half-open for ${seconds}`);
        link.stall();
      } else {
        const { lossRate, delayMs, jitterMs, bytesPerSecond } = step.weather;
        say(
          `bad weather for ${seconds}: ${(100 * lossRate).toFixed(1)}% loss, ${delayMs} ms delay, ${jitterMs} ms jitter, ${bytesPerSecond} bytes/s`,
        );
        link.shape(step.weather);
      }
      await pause(step.forMs);
    } finally {
      link.heal();
      link.shape(options.weather);
    }
    say('link healed');
  }

  const down = async (what: string, ms: number, start: () => Promise<unknown>) => {
    say(`${what}, back in ${inSeconds(ms)}`);
    await pause(ms);
    await start();
  };

  /** Returns whether it happened. */
  async function atParts({ kind, forMs }: PartStep): Promise<boolean> {
    if (kind === 'gateway-kill') {
      await site.keepDisk();
      await pause(KEPT_FOR_MS);
      await gateway.kill();
      await down('gateway killed', forMs, gateway.start);
    } else if (kind === 'power-cut') {
      await gateway.kill();
      await down("power cut at the gateway's box", forMs, gateway.start);
    } else if (kind === 'gateway-pause') {
      const pid = gateway.pid()!;
      say(`gateway paused for ${inSeconds(forMs)}`);
      process.kill(pid, 'SIGSTOP');
      await pause(forMs).finally(() => process.kill(pid, 'SIGCONT'));
    } else if (kind === 'broker-kill') {
      await broker.server.kill();
      brokerKilledAt.push(Date.now());
      await down('broker killed', forMs, broker.server.start);
    } else if (kind === 'broker-kill-queueing') {
      // What it has acknowledged to devices since its last save is in its memory alone: that is the broker's to lose.
      await site.keepDisk();
      await gateway.kill();
      say(`gateway killed; the broker queues for ${inSeconds(forMs)} and is killed too`);
      await pause(forMs);
      await broker.server.kill();
      brokerKilledAt.push(Date.now());
      await broker.server.start();
      await gateway.start();
    } else if (kind === 'cloud-kill') {
      await stack.cloud.kill();
      await down('cloud node killed', forMs, stack.startCloud);
    } else if (kind === 'nats-kill') {
      await stack.nats.kill();
      await down('nats-server killed', forMs, stack.nats.start);
    } else if (kind === 'stream-deleted') {
      await site.deleteStream();
      say('stream deleted');
    } else if (kind === 'log-image') {
      site.takeImage('earlier');
      say("an image of the gateway's disk taken");
    } else if (kind === 'log-restored') return linkInUse(restore);
    else if (kind === 'log-cloned') {
      site.takeImage('clone');
      const clone = await site.startClone('clone');
      say(`a clone of the gateway runs for ${inSeconds(forMs)}`);
      await pause(forMs).finally(() => clone.stop());
    }
    return true;
  }

  /**
   * A disk that is put back takes with it what was on the one it replaces. That is no fault of Holdfast's, so the disk is
   * empty of news first: the gateway is stopped, and all that it acknowledged is in history.
   */
  async function restore(): Promise<boolean> {
    const since = Date.now();
    const few = await inTime(DRAIN_MS, async () => {
      const waiting = await site.unsettled();
      return waiting !== null && waiting.askedAt > since && waiting.messages < FEW;
    });
    if (few) {
      await gateway.stop();
      const stored = await inTime(STORED_MS, options.allStored);
      if (stored) site.putBack('earlier');
      await gateway.start();
      if (stored) {
        say("the gateway's data was replaced by the earlier image");
        return true;
      }
    }
    say('not replaced by the earlier image: the gateway holds what history does not have yet');
    return false;
  }

  async function inTime(ms: number, probe: () => Promise<boolean>): Promise<boolean> {
    const deadline = performance.now() + ms;
    while (performance.now() < deadline) {
      if (await probe()) return true;
      await pause(250);
    }
    return false;
  }

  async function hand<T extends LinkStep | PartStep>(
    steps: readonly T[],
    act: (step: T) => Promise<boolean>,
  ): Promise<void> {
    for (const step of steps) {
      await until(step.atMs);
      const happened = await act(step);
      if (happened && step.kind !== 'log-image') done[step.kind] = (done[step.kind] ?? 0) + 1;
    }
  }

  await Promise.all([
    hand(plan.link, step =>
      linkInUse(async () => {
        await atLink(step);
        return true;
      }),
    ),
    hand(plan.parts, atParts),
  ]);
  return { done, brokerKilledAt };
}

export const inSeconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

/** One after the other. */
function newLock(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return work => {
    const mine = last.catch(() => undefined).then(work);
    last = mine;
    return mine;
  };
}
