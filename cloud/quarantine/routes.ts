/** Quarantined messages over HTTP: one as a whole, and replaying or discarding some of them. */
import type { TemplatedApp } from 'uWebSockets.js';
import type { Pool } from 'pg';
import { z } from 'zod';
import { type ChangeAccess, changeJson, getJson, Problem } from '../api/http.ts';
import { SiteName } from '../registry/model.ts';
import { mappingOf } from './mapping.ts';
import { type ReplayContext, replayMessage } from './replay.ts';
import { discardEntries, findEntry, selectEntries } from './store.ts';

const Selection = {
  ids: z.array(z.number().int().min(1)).min(1).max(1000).optional(),
  site: SiteName.optional(),
  /** All that is there: said outright, so that nobody does it by leaving something out. */
  all: z.literal(true).optional(),
};
const isSaid = (of: { ids?: unknown; site?: unknown; all?: unknown }) =>
  [of.ids, of.site, of.all].filter(one => one !== undefined).length === 1;
const SAY = 'say one of ids, site, all';

const Replay = z
  .strictObject({
    ...Selection,
    mapping: z.unknown().optional(),
    /** `next` of the answer before. */
    after: z.number().int().min(0).default(0),
    limit: z.number().int().min(1).max(500).default(200),
  })
  .refine(isSaid, SAY);
const Discard = z.strictObject(Selection).refine(isSaid, SAY);

export function registerQuarantineRoutes(options: {
  readonly app: TemplatedApp;
  readonly pool: Pool;
  readonly context: ReplayContext;
  /** Sends what {@link replayMessage} left for the twins; what fails now is tried again later. */
  readonly tellTwins: () => Promise<void>;
  readonly access: ChangeAccess;
  readonly onError: (route: string, error: unknown) => void;
}): void {
  const { app, pool, context, access, onError } = options;

  getJson(
    app,
    '/quarantine/:id',
    async ({ parameters: [id = ''] }) => {
      const entry = /^\d{1,15}$/.test(id) ? await findEntry(pool, Number(id)) : null;
      if (!entry) throw new Problem(404, 'Not found', `nothing in quarantine has the id ${id}`);
      const { payload, log, ...shown } = entry;
      const bytes = Buffer.from(payload);
      return { ...shown, payload: bytes.toString('utf8'), payloadBase64: bytes.toString('base64') };
    },
    onError,
  );

  changeJson(
    app,
    'post',
    '/quarantine/replay',
    async ({ body }) => {
      const { ids, site, after, limit, mapping: given } = Replay.parse(body);
      const mapping = mappingOf(given);
      if (!mapping.ok) throw new Problem(400, 'Bad request', mapping.problems.join('; '));
      const entries = await selectEntries(pool, { ids, site }, { after, limit });
      const kept: { id: number; reason: string }[] = [];
      let replayed = 0;
      let rows = 0;
      for (const entry of entries) {
        const outcome = await replayMessage(entry, mapping.mapping, context);
        if (outcome.outcome === 'kept') kept.push({ id: entry.id, reason: outcome.reason });
        if (outcome.outcome !== 'replayed') continue;
        replayed++;
        rows += outcome.rows;
      }
      let twinsTold = true;
      await options.tellTwins().catch(error => {
        twinsTold = false;
        onError('/quarantine/replay', error);
      });
      return { replayed, rows, kept, twinsTold, next: entries.length === limit ? entries.at(-1)!.id : null };
    },
    access,
    onError,
  );

  changeJson(
    app,
    'post',
    '/quarantine/discard',
    async ({ body }) => {
      const { ids, site } = Discard.parse(body);
      return { discarded: await discardEntries(pool, { ids, site }) };
    },
    access,
    onError,
  );
}
