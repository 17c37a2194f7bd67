/**
 * Who is paged: a receiver of webhooks, which heard what people would have heard, and what it should have heard. A digest counts
 * as each of the pages that it names.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export type PageEvent = 'opened' | 'cleared';

/** By `event incident`: the ids under which it came. */
export type Heard = ReadonlyMap<string, ReadonlySet<string>>;

export interface PageReceiver {
  readonly url: string;
  readonly heard: Heard;
  /** Pages that a digest only counted. */
  readonly unnamed: number;
  close(): void;
}

interface Named {
  readonly id: string;
  readonly event: PageEvent;
  readonly incident: string;
}
type Body =
  | { readonly type: 'incident.opened' | 'incident.cleared'; readonly data: { readonly incident: string } }
  | {
      readonly type: 'incidents.digest';
      readonly data: { readonly pages: readonly Named[]; readonly more: number };
    }
  | { readonly type: 'channel.test' };

export const pageKey = (event: PageEvent, incident: string): string => `${event} ${incident}`;

/** @returns once it listens on loopback */
export async function openPageReceiver(): Promise<PageReceiver> {
  const heard = new Map<string, Set<string>>();
  let unnamed = 0;
  const note = ({ id, event, incident }: Named) => {
    const key = pageKey(event, incident);
    const ids = heard.get(key);
    if (ids) ids.add(id);
    else heard.set(key, new Set([id]));
  };
  const server = createServer(async (request, response) => {
    try {
      let text = '';
      for await (const chunk of request) text += String(chunk);
      const body = JSON.parse(text) as Body;
      if (body.type === 'incidents.digest') {
        for (const page of body.data.pages) note(page);
        unnamed += body.data.more;
      } else if (body.type !== 'channel.test') {
        const event = body.type === 'incident.opened' ? 'opened' : 'cleared';
        note({ id: String(request.headers['webhook-id']), event, incident: body.data.incident });
      }
      response.end();
    } catch {
      // A sender that is killed in the middle: it was not answered, and says it again.
      response.destroy();
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/pages`,
    heard,
    get unnamed() {
      return unnamed;
    },
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** An incident as it is in the table. */
export interface PagedIncident {
  readonly id: string;
  readonly cleared: boolean;
  /** It was found in a backlog: nobody is paged. */
  readonly late: boolean;
}

/** Pure. @returns one line for each page that is missing, of nothing, or under two names */
export function wrongPages(
  incidents: readonly PagedIncident[],
  { heard, unnamed }: Pick<PageReceiver, 'heard' | 'unnamed'>,
): string[] {
  const wrong: string[] = [];
  const known = new Map(incidents.map(incident => [incident.id, incident]));
  for (const [key, ids] of heard) {
    const incident = key.slice(key.indexOf(' ') + 1);
    const isOver = key.startsWith('cleared');
    const of = known.get(incident);
    if (!of || (isOver && !of.cleared)) wrong.push(`people know what the table does not: ${key}`);
    if (ids.size > 1) wrong.push(`one page under ${ids.size} names: ${key}`);
  }
  // What a digest only counts may be any of them.
  if (unnamed > 0) return wrong;
  for (const { id, cleared, late } of incidents) {
    const events: readonly PageEvent[] = late ? [] : cleared ? ['opened', 'cleared'] : ['opened'];
    for (const event of events) {
      if (!heard.has(pageKey(event, id))) wrong.push(`nobody was told: ${pageKey(event, id)}`);
    }
  }
  return wrong;
}
