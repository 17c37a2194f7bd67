/**
 * What a node knows of its deliveries beyond the queues: the pages that channels have, and the notes of what became of
 * pages, until Postgres has them. Both are bounded (F): the oldest goes first.
 */
import type { Pool } from 'pg';
import { type DeliveryNote, writeNotes } from './delivery-table.ts';
import { pageKey } from './page.ts';

export interface DeliveryMemory {
  /** Pages whose notes wait for Postgres. */
  readonly waiting: number;
  /** @param key of the page, as `pageKey` makes it */
  has(channel: string, key: string): boolean;
  remember(channel: string, key: string): void;
  /** The latest of a page and a channel counts. */
  note(entry: DeliveryNote): void;
  /** Rejects when Postgres does not take them; they are kept. */
  flush(): Promise<void>;
  /** Forgets the notes of pages that are to be tried again. */
  dropPending(): void;
}

/** Delivered pages that are remembered; of older ones only Postgres knows. */
export const REMEMBERED_MAX = 100_000;
/** Notes that wait for Postgres; beyond it the oldest is dropped, and that page is in memory only. */
const NOTES_MAX = 100_000;
const NOTES_PER_WRITE = 1000;

export function newDeliveryMemory(pool: Pool): DeliveryMemory {
  /** `channel\npage` of what was delivered, oldest first. */
  const remembered = new Set<string>();
  let notes = new Map<string, DeliveryNote>();

  return {
    get waiting() {
      return notes.size;
    },
    has: (channel, key) => remembered.has(keyOf(channel, key)),
    remember(channel, key) {
      remembered.add(keyOf(channel, key));
      if (remembered.size <= REMEMBERED_MAX) return;
      for (const oldest of remembered) {
        remembered.delete(oldest);
        break;
      }
    },
    note(entry) {
      const key = keyOf(entry.channel, pageKey(entry.incident, entry.event));
      notes.delete(key);
      notes.set(key, entry);
      if (notes.size <= NOTES_MAX) return;
      for (const oldest of notes.keys()) {
        notes.delete(oldest);
        break;
      }
    },
    async flush() {
      while (notes.size > 0) {
        const batch = [...notes].slice(0, NOTES_PER_WRITE);
        await writeNotes(
          pool,
          batch.map(([, entry]) => entry),
        );
        for (const [key, entry] of batch) if (notes.get(key) === entry) notes.delete(key);
      }
    },
    dropPending() {
      notes = new Map([...notes].filter(([, entry]) => entry.state !== 'pending'));
    },
  };
}

const keyOf = (channel: string, page: string) => `${channel}\n${page}`;
