/**
 * The queue of one channel: pages that have yet to be told to it, in memory, with its own attempts under way, so that
 * a channel that fails holds up no other (H).
 *
 *   offer ─▶ waiting ─▶ under way ─▶ delivered
 *     │         ▲          │
 *     │         └─ backoff ┴─▶ failed: after 24 h, or when the receiver says never
 *     └─▶ held (flood.ts) ─▶ one digest, waiting
 *
 * A clear waits for its opening. Before each attempt the queue asks whether the partition is still ours; if not, the
 * entry is let go without a word: its rows are in Postgres, and the new owner works them off (D). What does not fit is
 * refused, and stays in Postgres until there is room (F).
 */
import { digestDueAt, freshFlow, isCalm, type SiteFlow, takeToken } from './flood.ts';
import { digestMessage, type Message, type Page, pageKey, pageMessage } from './page.ts';
import type { SendOutcome } from './webhook.ts';

/** What is to be noted of pages. `retry`: it failed, and is tried again at `nextAt`. */
export type Result =
  | { readonly state: 'delivered'; readonly attempts: number; readonly digest: string | null }
  | { readonly state: 'failed'; readonly attempts: number; readonly reason: string }
  | { readonly state: 'retry'; readonly attempts: number; readonly reason: string; readonly nextAt: number };

export interface ChannelQueue {
  /** 'known': it is in here already. 'full': not taken. */
  offer(page: Page, attempts?: number): 'taken' | 'known' | 'full';
  has(key: string): boolean;
  /** Looks at the clock now: what is due starts. */
  poke(): void;
  /** Lets go of everything that is not held any more, but for what is under way. */
  dropLost(): void;
  /** Resolves when nothing of the partition is under way. */
  settled(partition: number): Promise<void>;
  readonly pages: number;
  /** Why the last attempt failed; null when it did not. */
  readonly trouble: string | null;
  /** Starts no attempt any more. */
  close(): void;
}

export const queueLimits = {
  pagesMax: 10_000,
  /** Attempts under way. */
  concurrency: 4,
  backoffMinMs: 2000,
  backoffMaxMs: 3_600_000,
  /** Since the page was made. */
  giveUpMs: 24 * 3_600_000,
  /** Sites whose flow is remembered; of the others the rule starts anew. */
  flowsMax: 10_000,
} as const;

interface Entry {
  readonly pages: readonly Page[];
  readonly message: Message;
  readonly digest: string | null;
  attempts: number;
  dueAt: number;
  underWay: boolean;
}

interface Held {
  readonly pages: Page[];
  leavesAt: number;
}

/** By a clock that nobody sets: after one that was hours ahead, what is held would be held until then. */
const steadyNow = (): number => performance.timeOrigin + performance.now();

/** Half of it for sure, the rest by chance, so that many do not come back at once. */
export const backoffMs = (attempts: number, random: number): number =>
  Math.min(queueLimits.backoffMinMs * 2 ** Math.min(attempts - 1, 30), queueLimits.backoffMaxMs) *
  (0.5 + random / 2);

export function openChannelQueue(options: {
  channel: string;
  /** Whether floods become digests: for people, not for programs. */
  digests: boolean;
  /** One attempt; never rejects. */
  send: (message: Message) => Promise<SendOutcome>;
  holds: (partition: number, epoch: number) => boolean;
  onResult: (pages: readonly Page[], result: Result) => void;
  now?: () => number;
}): ChannelQueue {
  const { channel, send, holds, onResult } = options;
  const now = options.now ?? steadyNow;
  const entries = new Set<Entry>();
  const held = new Map<string, Held>();
  const flows = new Map<string, SiteFlow>();
  /** Of every page in here, the entry it is in; null while it is held. */
  const places = new Map<string, Entry | null>();
  let underWay = 0;
  let trouble: string | null = null;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  let idleWaiters: (() => void)[] = [];

  function offer(page: Page, attempts = 0): 'taken' | 'known' | 'full' {
    const { event, incident } = page;
    const key = pageKey(incident.id, event);
    if (places.has(key)) return 'known';
    if (closed || places.size >= queueLimits.pagesMax) return 'full';
    const openingHeld = event === 'cleared' && places.get(pageKey(incident.id, 'opened')) === null;
    if (openingHeld) {
      held.get(incident.site)!.pages.push(page);
      places.set(key, null);
    } else if (!options.digests || passes(incident.site)) {
      add([page], pageMessage(page), null, attempts);
    } else {
      hold(page);
      places.set(key, null);
    }
    run();
    return 'taken';
  }

  function passes(site: string): boolean {
    const flow = flows.get(site) ?? freshFlow(now());
    const after = takeToken(flow, now());
    if (after) remember(site, after);
    return after !== null;
  }

  function remember(site: string, flow: SiteFlow): void {
    if (flows.size >= queueLimits.flowsMax && !flows.has(site)) {
      for (const [name, of] of flows) if (isCalm(of, now())) flows.delete(name);
      if (flows.size >= queueLimits.flowsMax) flows.clear();
    }
    flows.set(site, flow);
  }

  function hold(page: Page): void {
    const { site } = page.incident;
    const flow = flows.get(site) ?? freshFlow(now());
    const group = held.get(site) ?? { pages: [], leavesAt: digestDueAt(flow, now()) };
    group.pages.push(page);
    held.set(site, group);
  }

  function add(pages: readonly Page[], message: Message, digest: string | null, attempts: number): void {
    const entry: Entry = { pages, message, digest, attempts, dueAt: now(), underWay: false };
    entries.add(entry);
    for (const { incident, event } of pages) places.set(pageKey(incident.id, event), entry);
  }

  function letGo(entry: Entry): void {
    entries.delete(entry);
    for (const { incident, event } of entry.pages) places.delete(pageKey(incident.id, event));
  }

  function releaseHeld(): void {
    for (const [site, group] of held) {
      if (group.leavesAt > now()) continue;
      held.delete(site);
      const [first] = group.pages;
      if (group.pages.length === 1) {
        add(group.pages, pageMessage(first!), null, 0);
        continue;
      }
      const message = digestMessage(channel, group.pages);
      remember(site, { ...(flows.get(site) ?? freshFlow(now())), digestAt: now() });
      add(group.pages, message, message.id, 0);
    }
  }

  /** Whether its opening is still to be told, by another entry. */
  const waitsForOpening = (entry: Entry): boolean =>
    entry.pages.some(({ event, incident }) => {
      if (event === 'opened') return false;
      const opening = places.get(pageKey(incident.id, 'opened'));
      return opening !== undefined && opening !== entry;
    });

  function run(): void {
    if (closed) return;
    clearTimeout(timer);
    releaseHeld();
    let nextAt = Number.POSITIVE_INFINITY;
    for (const { leavesAt } of held.values()) nextAt = Math.min(nextAt, leavesAt);
    for (const entry of entries) {
      if (underWay >= queueLimits.concurrency) break;
      if (entry.underWay || waitsForOpening(entry)) continue;
      if (entry.dueAt > now()) {
        nextAt = Math.min(nextAt, entry.dueAt);
        continue;
      }
      void attempt(entry);
    }
    if (nextAt < Number.POSITIVE_INFINITY) {
      timer = setTimeout(run, Math.max(0, nextAt - now()));
      timer.unref();
    }
  }

  async function attempt(entry: Entry): Promise<void> {
    const { partition, epoch, since } = entry.pages[0]!;
    if (!holds(partition, epoch)) return letGo(entry);
    underWay++;
    entry.underWay = true;
    entry.attempts++;
    const { attempts } = entry;
    const outcome = await send(entry.message);
    underWay--;
    entry.underWay = false;
    if (outcome.outcome === 'delivered') {
      trouble = null;
      onResult(entry.pages, { state: 'delivered', attempts, digest: entry.digest });
      letGo(entry);
    } else {
      const { reason } = outcome;
      trouble = reason;
      const oldest = Math.min(...entry.pages.map(page => page.since), since);
      const waitMs = Math.max(backoffMs(attempts, Math.random()), outcome.retryAfterMs ?? 0);
      if (outcome.final || now() + waitMs - oldest > queueLimits.giveUpMs) {
        onResult(entry.pages, { state: 'failed', attempts, reason });
        letGo(entry);
      } else {
        entry.dueAt = now() + waitMs;
        onResult(entry.pages, { state: 'retry', attempts, reason, nextAt: entry.dueAt });
      }
    }
    const woken = idleWaiters;
    idleWaiters = [];
    for (const wake of woken) wake();
    run();
  }

  return {
    offer,
    has: key => places.has(key),
    poke: run,
    dropLost() {
      const isLost = ({ partition, epoch }: Page) => !holds(partition, epoch);
      for (const entry of entries) if (!entry.underWay && isLost(entry.pages[0]!)) letGo(entry);
      for (const [site, group] of held) {
        if (!isLost(group.pages[0]!)) continue;
        held.delete(site);
        for (const { incident, event } of group.pages) places.delete(pageKey(incident.id, event));
      }
    },
    async settled(partition) {
      const isBusy = () =>
        [...entries].some(entry => entry.underWay && entry.pages[0]!.partition === partition);
      while (isBusy()) await new Promise<void>(resolve => idleWaiters.push(resolve));
    },
    get pages() {
      return places.size;
    },
    get trouble() {
      return trouble;
    },
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
}
