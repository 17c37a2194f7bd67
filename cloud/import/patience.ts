/**
 * Servers that are away come back: what fails for that is tried again, and said once per reason. What no waiting mends
 * (no permission, wrong password, no schema) ends the import with what to do.
 */
import { JetStreamApiError } from '@nats-io/jetstream';
import { errors } from '@nats-io/nats-core';

/** The import cannot go on; the message says what to do. */
export class ImportStopped extends Error {}

export interface Patience {
  /** Tries until it works. Rejects with {@link ImportStopped} where waiting is no use, or for longer than allowed. */
  insist<T>(what: string, attempt: () => Promise<T>): Promise<T>;
  /** Time passes without news; says so now and then. Rejects like {@link insist}. */
  idle(what: string): Promise<void>;
  /** Something has moved. */
  news(): void;
}

const RETRY_MS = { first: 200, max: 5000 };
const POLL_MS = 200;
const SAY_AFTER_MS = 5000;
const STREAM_FULL = 10_077;

/** @param waitMs without any news, after which it gives up; Infinity to wait for ever */
export function newPatience(o: { waitMs: number; say: (line: string) => void }): Patience {
  let newsAt = performance.now();
  let saidAt = newsAt;
  let lastReason = '';

  function checkTime(what: string): void {
    if (performance.now() - newsAt <= o.waitMs) return;
    throw new ImportStopped(
      `${what}: no news for ${Math.round(o.waitMs / 1000)} s. Import the same files again later; what is there already stays as it is.`,
    );
  }

  return {
    async insist(what, attempt) {
      for (let waitMs = RETRY_MS.first; ; waitMs = Math.min(waitMs * 2, RETRY_MS.max)) {
        try {
          const result = await attempt();
          if (lastReason) o.say('going on');
          lastReason = '';
          return result;
        } catch (error) {
          const hopeless = hopelessReason(error);
          if (hopeless) throw new ImportStopped(`${what}: ${hopeless}`);
          const reason = `${what}: ${reasonOf(error)}; waiting`;
          if (reason !== lastReason) o.say(reason);
          lastReason = reason;
          checkTime(what);
          await pause(waitMs);
        }
      }
    },
    async idle(what) {
      checkTime(what);
      const now = performance.now();
      if (now - Math.max(newsAt, saidAt) > SAY_AFTER_MS) {
        saidAt = now;
        o.say(`${what}; still waiting. Stopping now does no harm: the same files can be imported again.`);
      }
      await pause(POLL_MS);
    },
    news() {
      newsAt = performance.now();
    },
  };
}

function reasonOf(error: unknown): string {
  if (error instanceof JetStreamApiError && error.code === STREAM_FULL) {
    return 'the stream is full until history has read on';
  }
  const { message, errors: several } = error as AggregateError;
  return message || several?.map(each => (each as Error).message).join(', ') || String(error);
}

function hopelessReason(error: unknown): string | null {
  if (error instanceof ImportStopped) return error.message;
  const { message, cause } = error as Error;
  if (error instanceof errors.PermissionViolationError || cause instanceof errors.PermissionViolationError) {
    return `${message}; docs/sneakernet.md lists what the import's NATS user needs`;
  }
  if (error instanceof errors.AuthorizationError || error instanceof errors.UserAuthenticationExpiredError) {
    return `NATS refuses the user: ${message}`;
  }
  // PostgreSQL: wrong role or password, no right, no such database or table.
  const { code } = error as { code?: unknown };
  if (typeof code === 'string' && /^(28...|42501|3D000|3F000|42P01)$/.test(code)) return message;
  return null;
}

const pause = (ms: number) => new Promise<void>(resolve => setTimeout(resolve, ms));
